"""The command, its examination, and what it leaves out."""

import json
import os
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_jax import prepare_dataset
from fer_jax.data import dataset
from fer_jax.errors import UserError
from tests.data.images import link_ck48

ROLES = {role: role for role in ('train', 'validation', 'test')}


@pytest.fixture
def jaffe(tmp_path):
    """Sixty portraits of six subjects, two of them copies, one blank, one no image."""
    generator = np.random.default_rng(0)
    folder = tmp_path / 'jaffe'
    folder.mkdir()
    for at in range(60):
        rough = Image.fromarray(generator.integers(0, 256, (6, 6), np.uint8))
        name = f'{"KMNSTU"[at % 6]}A.{("AN", "HA", "SA")[at % 3]}{at}.{at}.png'
        rough.resize((40, 40), Image.Resampling.BICUBIC).save(folder / name)
    names = sorted(folder.iterdir())
    shutil.copy(names[0], names[1])
    Image.new('L', (40, 40), 9).save(names[20])
    names[30].write_bytes(b'no image')
    return folder


def call(*arguments):
    return prepare_dataset.main([str(argument) for argument in arguments])


def test_what_is_dropped_is_gone_until_it_is_taken_back(jaffe, tmp_path, capsys):
    where = ('--dataset', 'jaffe', '--root', tmp_path / 'sets')

    def load():
        return dataset.load_dataset(name='jaffe', splits=ROLES, image_size=32, channels=1, root=tmp_path / 'sets')

    def count(data):
        return sum(len(split.ids) for split in data.splits.values())

    assert call(*where, '--source', jaffe) == 0
    printed = capsys.readouterr().out
    assert '60 (not 213)' in printed and 'exact duplicates' in printed
    examination = tmp_path / 'sets' / 'jaffe' / '1.0.0' / 'examination'
    findings = json.loads((examination / 'findings.json').read_text())
    assert (len(findings['unreadable']), len(findings['blank']), findings['duplicates']['groups']) == (1, 1, 1)
    assert (examination / 'classes.png').exists()
    whole = load()
    assert call(*where, '--check', '--drop', 'blank,unreadable,duplicates') == 0
    assert '3 of 60 images are left out from now on' in capsys.readouterr().out
    clean = load()
    assert (count(whole), count(clean)) == (60, 57) and clean.fingerprint != whole.fingerprint
    assert call(*where, '--check', '--drop', '') == 0
    assert load().fingerprint == whole.fingerprint
    assert call(*where, '--check', '--drop', 'ugly') == 2
    assert "--drop='ugly' is unknown" in capsys.readouterr().err
    assert call(*where, '--check', '--drop', 'uncertain') == 2
    assert 'does not say which of its images are certain' in capsys.readouterr().err


def test_of_a_folder_what_is_left_is_a_manifest(tmp_path, capsys):
    generator = np.random.default_rng(0)
    for at in range(24):
        path = tmp_path / 'faces' / 'ab'[at % 2] / f's{at % 6}_{at}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (30, 30), np.uint8)).save(path)
    Image.new('L', (30, 30)).save(path)
    where = ('--dataset', 'folder', '--source', tmp_path / 'faces', '--out', tmp_path / 'report')
    assert call(*where, '--subject', r'(s\d)_', '--drop', 'blank', '--keep', tmp_path / 'kept.csv') == 0
    assert '23 of 24 images are listed in' in capsys.readouterr().out
    data = dataset.load_dataset(
        manifest=str(tmp_path / 'kept.csv'), splits=ROLES, image_size=32, channels=1, root=tmp_path
    )
    assert sum(len(split.ids) for split in data.splits.values()) == 23
    people = [set(split.subjects) for split in data.splits.values()]
    assert sum(map(len, people)) == len(set.union(*people)) == 6
    assert call('--dataset', 'manifest', '--source', tmp_path / 'kept.csv', '--out', tmp_path / 'again') == 0
    assert call(*where, '--drop', 'blank') == 2
    assert 'without --keep' in capsys.readouterr().err


def test_the_command_that_a_broken_folder_is_answered_with_leaves_out_what_is_broken(
    shared_data, tmp_path, capsys, monkeypatch
):
    """Of a manifest, which names missing files and a pipe too, as of a folder."""
    monkeypatch.chdir(tmp_path)
    linked = link_ck48(shared_data, tmp_path / 'linked', ('happy', 'anger'), 12)
    faces = Path(shutil.copytree(linked, tmp_path / 'faces'))
    paths = sorted(faces.rglob('*.png'))
    paths[0].write_bytes(b'')
    paths[1].write_bytes(paths[1].read_bytes()[:300])
    (faces / 'happy' / 'notes.txt').write_text('stray')
    os.mkfifo(tmp_path / 'pipe.png')
    with (tmp_path / 'list.csv').open('w') as file:
        file.write('path,label\n/dev/zero,happy\npipe.png,happy\nlost.png,happy\n')
        file.writelines(f'{path},{path.parent.name}\n' for path in paths)
    settings = {'splits': ROLES, 'image_size': 48, 'channels': 1, 'root': tmp_path}
    for source, broken in (({'dir': 'faces'}, 2), ({'manifest': 'list.csv'}, 5)):
        with pytest.raises(UserError, match=f'{broken} of the {22 + broken} images of') as caught:
            dataset.load_dataset(**source, **settings)
        command, _, train = str(caught.value).split('leave them out: ')[1].partition(', then train on ')
        assert call(*shlex.split(command)[3:]) == 0
        kept = train.removeprefix('--config.data.manifest=')
        data = dataset.load_dataset(manifest=kept, **settings)
        assert sum(len(split.ids) for split in data.splits.values()) == 22
    findings = json.loads((tmp_path / 'examination' / 'faces' / 'findings.json').read_text())
    assert findings['left_out'] == {'no image by its suffix': ['happy/notes.txt']}
    assert 'left out: 1 (no image by its suffix): happy/notes.txt' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--dataset', 'jaffe', '--check'), 'jaffe is not prepared'),
        (('--dataset', 'jaffe'), '--source is missing'),
        (('--dataset', 'folder'), '--source is missing; give the folder'),
        (('--dataset', 'jaffe', '--keep', 'x.csv'), '--keep is for folders and manifests'),
    ],
)
def test_a_wrong_command_is_named(tmp_path, capsys, arguments, message):
    assert call(*arguments, '--root', tmp_path) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_damage_to_any_file_of_a_prepared_set_is_one_message(jaffe, tmp_path, capsys, caplog):
    root = tmp_path / 'sets'
    assert call('--dataset', 'jaffe', '--root', root, '--source', jaffe, '--drop', 'blank,unreadable') == 0

    def load():
        data = dataset.load_dataset(name='jaffe', splits=ROLES, image_size=32, channels=1, root=root)
        return {role: split.read(np.arange(len(split.ids))) for role, split in data.splits.items()}

    whole = load()
    files = sorted(path for path in (root / 'jaffe' / '1.0.0').iterdir() if path.is_file())
    assert {'SHA256SUMS', 'dropped.json', 'index.npz', 'dataset_info.json'} < {path.name for path in files}
    for path in files:
        data = path.read_bytes()
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 4
        for harmed in (bytes(flipped), data[: len(data) // 2]):
            path.write_bytes(harmed)
            if path.name == 'index.npz':  # is made anew of the records
                caplog.clear()
                again = load()
                assert all(np.array_equal(again[role], whole[role]) for role in whole)
                assert 'index.npz is damaged' in caplog.text
            else:
                with pytest.raises(UserError, match=r'damaged.*(anew|again|take it from a copy)'):
                    load()
        path.write_bytes(data)
    load()
