"""The pseudo_label command."""

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

import fer_jax
from fer_jax import pseudo_label
from fer_jax.data.imaging import codec
from fer_jax.data.sources import manifest
from fer_jax.runs import results as run_results
from fer_jax.training import setup
from fer_jax.utils import checked_files
from tests.lazy import lazy

special = lazy('scipy.special')


def test_a_run_labels_what_it_is_sure_of(finished, faces, tmp_path, capsys):
    """As it would by its own probabilities, calibrated; the labelled rows come first and stay as they are."""
    workdir, results = finished
    labelled = tmp_path / 'labelled.csv'
    image = next((faces / 'happy').iterdir())
    labelled.write_text(f'path,split,label\n{image},validation,happy\n')
    output = tmp_path / 'pseudo.csv'
    command = ['--workdir', str(workdir), '--data', str(faces / 'anger'), '--output', str(output)]
    part = run_results.read_predictions(workdir / 'predictions.npz', 'test')
    shares = special.softmax(part['logits'] / results['calibrated']['temperature'], axis=1)
    threshold = float(np.median(shares.max(1)))  # half of the twelve images are above it
    assert pseudo_label.main([*command, '--labelled', str(labelled), '--threshold', str(threshold), '--most', '7']) == 0
    record, table = json.loads(output.with_suffix('.json').read_text()), manifest.read_manifest(output)
    assert table.splits[0] == 'validation' and set(table.splits[1:]) <= {'train'} and len(table) > 1
    assert len(table) - 1 == sum(record['kept'].values()) and max(record['kept'].values()) <= 7
    assert record['temperature'] == results['calibrated']['temperature']
    kept = shares.max(1) >= threshold
    assert record['test']['n'] == kept.sum() and record['step'] == results['step']
    assert record['test']['precision'] == np.mean((shares.argmax(1) == part['labels'])[kept])
    predictor = fer_jax.load(workdir)
    name = str(table.ids[1])
    face = codec.decode(Path(name).read_bytes(), 32, 3, name)
    assert table.classes[table.labels[1]] == predictor.classes[predictor(face[None]).argmax()]
    assert 'are right' in capsys.readouterr().out
    assert pseudo_label.main([*command, '--threshold', '1.5']) == 2
    assert pseudo_label.main(['--workdir', str(tmp_path), *command[2:]]) == 2
    assert 'holds no finished run' in capsys.readouterr().err


def test_what_is_broken_is_passed_over_and_counted(finished, faces, tmp_path, capsys):
    """By the digests that the run keeps of its images; its data need not be there for that."""
    workdir, labelled = tmp_path / 'copy', tmp_path / 'labelled.csv'
    shutil.copytree(finished[0], workdir)
    config = json.loads((workdir / 'config.json').read_text())
    config['data']['dir'] = str(tmp_path / 'gone')
    checked_files.write_json(workdir / 'config.json', config)
    photos = Path(shutil.copytree(faces, tmp_path / 'photos'))
    paths = sorted(photos.rglob('*.png'))
    paths[0].write_bytes(b'')
    paths[1].write_bytes(b'no image')
    for path in paths[2:]:
        Image.fromarray(np.asarray(Image.open(path)) ^ np.uint8(1)).save(path)
    labelled.write_text(f'path,split,label\n{paths[2]},validation,ANGRY\n')
    command = ['--workdir', str(workdir), '--data', str(photos), '--output', str(tmp_path / 'pseudo.csv')]
    assert pseudo_label.main([*command, '--labelled', str(labelled), '--threshold', '0']) == 2
    written = capsys.readouterr()
    assert '2 images of' in written.err and 'anger/S010_004_00000017.png (an empty file)' in written.out
    record = json.loads((tmp_path / 'pseudo.json').read_text())
    assert record['left_out'] == {'of validation or test': 0, 'labelled already': 1, 'unreadable': 2}
    assert record['images'] == 87


def test_labels_of_its_own_making_neither_select_nor_test(finished, faces, tmp_path, capsys):
    """Labelled images keep the splits in which the run had them; what is scored or labelled gets no second label."""
    workdir, _ = finished
    unlabelled, output = tmp_path / 'unlabelled', tmp_path / 'new' / 'folder' / 'pseudo.csv'
    unlabelled.mkdir()
    for at, path in enumerate(sorted(faces.rglob('*.png'))):
        (unlabelled / f'copy {at}.png').write_bytes(path.read_bytes())
        if at % 3 == 0:
            Image.fromarray(np.asarray(Image.open(path)) ^ np.uint8(1)).save(unlabelled / f'new {at}.png')
    command = ['--workdir', str(workdir), '--data', str(unlabelled), '--threshold', '0']
    assert pseudo_label.main([*command, '--output', str(output)]) == 0
    record, table = json.loads(output.with_suffix('.json').read_text()), manifest.read_manifest(output)
    assert (
        record['left_out'] == {'of validation or test': 24, 'labelled already': 66, 'unreadable': 0}
        and record['images'] == 30
    )
    splits = setup.prepare(json.loads((workdir / 'config.json').read_text())).data.splits
    for role, split in splits.items():
        real = {(faces / name).resolve() for name in split.ids}
        listed = {Path(name) for name in table.ids[table.splits == role]}
        assert real == listed if role != 'train' else real < listed
        assert all('new ' in path.name for path in listed - real)
    assert len(table) == 90 + 30 and set(record['validation']) == set(record['test'])
    labelled = tmp_path / 'labelled.csv'
    labelled.write_text(f'path,label\n{unlabelled / "new 0.png"},anger\n')
    given = [*command, '--labelled', str(labelled)]
    assert pseudo_label.main([*given, '--output', str(tmp_path / 'x.csv')]) == 2
    assert 'does not say which images select' in capsys.readouterr().err
    labelled.write_text(f'path,label,split\n{unlabelled / "new 0.png"},anger,validation\n')
    assert pseudo_label.main([*given, '--output', str(labelled)]) == 2
    assert pseudo_label.main([*given, '--output', str(tmp_path / 'x.json')]) == 2
    assert pseudo_label.main([*given, '--output', str(tmp_path / 'x.csv')]) == 0
    record = json.loads((tmp_path / 'x.json').read_text())
    assert (
        record['left_out'] == {'of validation or test': 24, 'labelled already': 1, 'unreadable': 0}
        and record['images'] == 95
    )
