"""Every layout of every data set, as a small tree; what comes out is counted by hand."""

import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.sets import affectnet, celeb_a, ckplus, jaffe, lfw, rafdb, vggface2
from fer_jax.data.sources import prepared
from fer_jax.data.tables import splitting
from fer_jax.data.tables.expressions import EXPRESSIONS, canonical
from fer_jax.errors import UserError


def picture(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (30, 30), (level % 256,) * 3).save(path)


def level(data):
    return int(np.asarray(Image.open(io.BytesIO(data)).convert('L'))[0, 0])


def listed(reading):
    """split -> [(id, class, subject)]"""
    found = {}
    for split, count in reading.splits.items():
        examples = list(reading.examples(split))
        assert len(examples) == count and all(example.split == split for example in examples)
        found[split] = [(e.id, reading.classes[e.label] if reading.classes else '', e.subject) for e in examples]
    ids = [one for examples in found.values() for one, _, _ in examples]
    assert len(ids) == len(set(ids))
    return found


def zipped(folder):
    path = folder.with_suffix('.zip')
    with zipfile.ZipFile(path, 'w') as archive:
        for file in sorted(folder.rglob('*')):
            if file.is_file():
                archive.write(file, f'download/{file.relative_to(folder)}')
    return path


def test_names_are_canonical():
    assert [canonical(name) for name in ('Happiness', '3_surprise', 'AN', 'Contempt', ' sadness ', 'smirk')] == [
        'happy', 'surprise', 'angry', 'contempt', 'sad', 'smirk',
    ]  # fmt: skip
    assert all(canonical(name) == name for name in EXPRESSIONS)


@pytest.mark.parametrize('archive', [False, True])
@pytest.mark.parametrize('layout', ['list', 'folders'])
def test_rafdb(tmp_path, layout, archive):
    root = tmp_path / 'raf'
    rows = [('train_00001', 5), ('train_00002', 1), ('test_0001', 7), ('test_0002', 4)]
    for number, (name, label) in enumerate(rows):
        split = name.split('_')[0]
        place = root / 'Image' / 'aligned' if layout == 'list' else root / 'DATASET' / split / str(label)
        picture(place / f'{name}_aligned.jpg', number)
        if layout == 'list':
            picture(root / 'Image' / 'original' / f'{name}.jpg')
    if layout == 'list':
        (root / 'EmoLabel').mkdir()
        (root / 'EmoLabel' / rafdb.LIST).write_text(
            '\ufeff' + ''.join(f'{name}.jpg {label}\r\n' for name, label in rows)
        )
    found = listed(rafdb.read(zipped(root) if archive else root))
    assert found == {
        'train': [('train_00001_aligned.jpg', 'sad', ''), ('train_00002_aligned.jpg', 'surprise', '')],
        'test': [('test_0001_aligned.jpg', 'neutral', ''), ('test_0002_aligned.jpg', 'happy', '')],
    }
    assert sum(rafdb.PUBLISHED['train']) == 12_271 and sum(rafdb.PUBLISHED['test']) == 3_068


def test_rafdb_says_what_is_missing(tmp_path):
    (tmp_path / rafdb.LIST).write_text('train_00001.jpg 5\ntrain_00002.jpg 1\n')
    with pytest.raises(UserError, match='none of the 2 images'):
        rafdb.read(tmp_path)
    picture(tmp_path / 'aligned' / 'train_00001_aligned.jpg')
    assert rafdb.read(tmp_path).notes[0].startswith('1 images that list_patition_label.txt lists are missing')
    (tmp_path / rafdb.LIST).write_text('train_00001.jpg 5\ntrain_00002.jpg 8\n')
    with pytest.raises(UserError, match="row 2: '8', expected a whole number from 1 to 7"):
        rafdb.read(tmp_path)
    (tmp_path / rafdb.LIST).write_text('valid_00001.jpg 5\n')
    with pytest.raises(UserError, match='row 1'):
        rafdb.read(tmp_path)


def affectnet_csv(root, rows):
    head = 'subDirectory_filePath,face_x,facial_landmarks,expression,valence,arousal\n'
    points = ';'.join(f'{value}.5' for value in range(136))
    for stem, part in (('training', rows[:3]), ('validation', rows[3:])):
        lines = [f'{name},0,{points},{label},{valence},{arousal}\n' for name, label, valence, arousal in part]
        (root / f'{stem}.csv').write_text(head + ''.join(lines))
    for number, (name, *_) in enumerate(rows):
        picture(root / 'Manually_Annotated_Images' / name, number)


def test_affectnet_as_csv(tmp_path):
    rows = [('1/a.jpg', 1, 0.5, -0.25), ('2/a.jpg', 7, -2, -2), ('2/b.jpg', 9, 0, 0), ('3/c.jpg', 6, 0.1, 0.2)]
    affectnet_csv(tmp_path, rows)
    reading = affectnet.read(tmp_path)
    assert listed(reading) == {
        'train': [('1/a.jpg', 'happy', ''), ('2/a.jpg', 'contempt', '')],
        'test': [('3/c.jpg', 'angry', '')],
    }
    assert '1 images without one of the eight expressions' in reading.notes[0]
    levels = [example.targets['valence_arousal'].tolist() for example in reading.examples('train')]
    assert levels[0] == [0.5, -0.25] and np.isnan(levels[1]).all()
    landmarks = next(iter(reading.examples('test'))).targets['landmarks']
    np.testing.assert_allclose(landmarks, np.array([77, 78, 89, 90, 60, 61, 96, 97, 108, 109]) + 0.5)
    (tmp_path / 'training.csv').write_text('subDirectory_filePath,expression,valence\n')
    with pytest.raises(UserError, match='has no column arousal'):
        affectnet.read(tmp_path)


def test_affectnet_as_npy(tmp_path):
    points = np.arange(136, dtype=np.float64)
    for split, names in (('train_set', '01'), ('val_set', '2')):
        for name in names:
            picture(tmp_path / split / 'images' / f'{name}.jpg', int(name))
            place = tmp_path / split / 'annotations'
            place.mkdir(parents=True, exist_ok=True)
            np.save(place / f'{name}_exp.npy', np.array(str(int(name) + 3)))  # text, as in the copies
            np.save(place / f'{name}_val.npy', np.array('0.5'))
            np.save(place / f'{name}_aro.npy', np.array(-0.5))
            np.save(place / f'{name}_lnd.npy', points)
    reading = affectnet.read(tmp_path)
    assert [name for _, name, _ in listed(reading)['train']] == ['surprise', 'fear']
    assert [name for _, name, _ in listed(reading)['test']] == ['disgust']
    example = next(iter(reading.examples('test')))
    assert example.targets['valence_arousal'].tolist() == [0.5, -0.5] and level(example.image) == 2
    # eyes: means of points 36 to 41 and 42 to 47, whose x are 72, 74, ... 82 and 84, ... 94
    assert example.targets['landmarks'].tolist() == [77, 78, 89, 90, 60, 61, 96, 97, 108, 109]
    np.save(tmp_path / 'train_set' / 'annotations' / '0_exp.npy', np.array([{'a': 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match='0_exp.npy holds no number'):
        affectnet.read(tmp_path)


def test_ck48_is_the_published_set(shared_data):
    reading = ckplus.read(shared_data / 'ck48')
    found = listed(reading)['all']
    assert len(found) == 981 and len({subject for _, _, subject in found}) == 118
    counts = {name: sum(own == name for _, own, _ in found) for name in reading.classes}
    assert counts == ckplus.PEAKS and sum(reading.published['all']) == 981
    assert reading.notes == ('118 subjects in 327 sequences; published: 118 in 327',)


def test_ckplus_as_sequences(tmp_path):
    for number in range(1, 8):
        picture(tmp_path / 'cohn-kanade-images' / 'S010' / '002' / f'S010_002_0000000{number}.png', number)
        picture(tmp_path / 'cohn-kanade-images' / 'S011' / '001' / f'S011_001_0000000{number}.png', 100)
    emotion = tmp_path / 'Emotion' / 'S010' / '002' / 'S010_002_00000007_emotion.txt'
    emotion.parent.mkdir(parents=True)
    emotion.write_text('   3.0000000e+00\n')
    reading = ckplus.read(tmp_path)
    assert listed(reading)['all'] == [
        ('S010_002_00000001.png', 'neutral', 'S010'),
        *((f'S010_002_0000000{number}.png', 'disgust', 'S010') for number in (5, 6, 7)),
    ]
    emotion.write_text('nine')
    with pytest.raises(UserError, match="holds 'nine', expected 1 to 7"):
        ckplus.read(tmp_path)


def test_jaffe(tmp_path):
    for number, name in enumerate(('KA.AN1.39.tiff', 'KM.SU3.14.tiff', 'YM.NE2.50.tiff', 'readme.png')):
        picture(tmp_path / name, number)
    reading = jaffe.read(tmp_path)
    assert [(name, subject) for _, name, subject in listed(reading)['all']] == [
        ('angry', 'KA'), ('surprise', 'KM'), ('neutral', 'YM'),
    ]  # fmt: skip
    assert reading.notes == ('1 images of other names are left out',)


ATTRIBUTES = [f'Attribute_{number}' for number in range(40)]


@pytest.mark.parametrize('kind', ['txt', 'csv'])
def test_celeb_a(tmp_path, kind):
    values = {f'00000{number}.jpg': np.where(np.arange(40) % (number + 1) == 0, 1, -1) for number in range(1, 5)}
    points = {name: np.arange(10) + 100 * number for number, name in enumerate(values)}
    for number, name in enumerate(values):
        picture(tmp_path / 'img_align_celeba' / 'img_align_celeba' / name, number)
    split = dict(zip(values, (0, 1, 2, 0), strict=True))
    if kind == 'txt':
        rows = ''.join(f'{name} {" ".join(f"{v:2d}" for v in row)}\n' for name, row in values.items())
        (tmp_path / 'list_attr_celeba.txt').write_text(f'4\n{" ".join(ATTRIBUTES)}\n{rows}')
        (tmp_path / 'list_eval_partition.txt').write_text(''.join(f'{name} {part}\n' for name, part in split.items()))
        (tmp_path / 'identity_CelebA.txt').write_text(''.join(f'{name} {7 + part}\n' for name, part in split.items()))
        head = ' '.join(f'p{at}_{axis}' for at in range(5) for axis in 'xy')
        rows = ''.join(f'{name} {" ".join(map(str, row))}\n' for name, row in points.items())
        (tmp_path / 'list_landmarks_align_celeba.txt').write_text(f'4\n{head}\n{rows}')
    else:
        rows = ''.join(f'{name},{",".join(map(str, row))}\n' for name, row in values.items())
        (tmp_path / 'list_attr_celeba.csv').write_text(f'image_id,{",".join(ATTRIBUTES)}\n{rows}')
        rows = ''.join(f'{name},{part}\n' for name, part in split.items())
        (tmp_path / 'list_eval_partition.csv').write_text(f'image_id,partition\n{rows}')
    reading = celeb_a.read(tmp_path)
    assert {name: len(examples) for name, examples in listed(reading).items()} == {
        'train': 2,
        'validation': 1,
        'test': 1,
    }
    assert reading.targets['attributes'] == tuple(ATTRIBUTES)
    for name in celeb_a.SPLITS:
        for example in reading.examples(name):
            np.testing.assert_array_equal(example.targets['attributes'], values[example.id] == 1)
            if kind == 'txt':
                np.testing.assert_array_equal(example.targets['landmarks'], points[example.id])
                assert example.subject == str(7 + split[example.id])
    stem = tmp_path / f'list_eval_partition.{kind}'
    stem.write_text(stem.read_text().replace('000003.jpg,2', '000003.jpg,3').replace('000003.jpg 2', '000003.jpg 3'))
    with pytest.raises(UserError, match="row 3: '3', expected a whole number from 0 to 2"):
        celeb_a.read(tmp_path)
    stem.unlink()
    with pytest.raises(UserError, match='has no list_eval_partition'):
        celeb_a.read(tmp_path)


def test_identity_folders(tmp_path):
    for split, people in (('train', ('n000002', 'n000003')), ('test', ('n000001',))):
        for person in people:
            for number in range(2):
                picture(tmp_path / 'vgg' / split / person / f'000{number}_01.jpg')
                picture(tmp_path / 'lfw' / person / f'{person}_000{number}.jpg')
    listed_only = tmp_path / 'listed'
    for split in ('train', 'test'):
        shutil.copytree(tmp_path / 'vgg' / split, listed_only / 'images', dirs_exist_ok=True)
        names = [path.relative_to(tmp_path / 'vgg' / split) for path in (tmp_path / 'vgg' / split).rglob('*.jpg')]
        (listed_only / f'{split}_list.txt').write_text(''.join(f'{name}\n' for name in names))
    assert listed(vggface2.read(listed_only)) == listed(vggface2.read(tmp_path / 'vgg'))
    reading = vggface2.read(tmp_path / 'vgg')
    assert reading.classes == ('n000001', 'n000002', 'n000003')
    found = listed(reading)
    assert {split: sorted({subject for _, _, subject in rows}) for split, rows in found.items()} == {
        'train': ['n000002', 'n000003'],
        'test': ['n000001'],
    }
    assert all(name == subject for rows in found.values() for _, name, subject in rows)
    assert len(listed(lfw.read(tmp_path / 'lfw'))['all']) == 6
    with pytest.raises(UserError, match=r'no images in folders train|test'):
        vggface2.read(tmp_path / 'lfw')


@pytest.mark.parametrize('reader', [rafdb, affectnet, ckplus, jaffe, celeb_a, vggface2, lfw])
def test_a_wrong_source_is_named(tmp_path, reader):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'notes.txt').write_text('hello')
    (tmp_path / 'cut.zip').write_bytes(b'PK\x03\x04')
    for name, message in (
        ('empty', 'has n'),
        ('lost', 'does not exist'),
        ('notes.txt', 'neither'),
        ('cut.zip', 'neither'),
    ):
        with pytest.raises(UserError, match=message) as caught:
            reader.read(tmp_path / name)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize('name', ['celeb_a', 'affectnet', 'ckplus'])
def test_what_is_written_reads_back(tmp_path, name, shared_data):
    """Without classes, with NaN among the targets, and with subjects."""
    if name == 'celeb_a':
        rows = ''.join(f'{at:06d}.jpg,{",".join(["1"] * 40)}\n' for at in range(4))
        (tmp_path / 'list_attr_celeba.csv').write_text(f'image_id,{",".join(ATTRIBUTES)}\n{rows}')
        parts = ''.join(f'{at:06d}.jpg,{at % 3}\n' for at in range(4))
        (tmp_path / 'list_eval_partition.csv').write_text(f'image_id,partition\n{parts}')
        for at in range(4):
            picture(tmp_path / 'img' / f'{at:06d}.jpg', at)
        source = tmp_path
    elif name == 'affectnet':
        affectnet_csv(
            tmp_path, [('1/a.jpg', 1, -2, 0), ('2/b.jpg', 2, 0, 0), ('2/c.jpg', 3, 0, 0), ('3/d.jpg', 6, 0, 0)]
        )
        source = tmp_path
    else:
        source = shared_data / 'ck48'
    prepared.prepare(name, source, tmp_path / 'sets')
    table = prepared.open_table(name, tmp_path / 'sets')
    reading = prepared.module(name).read(source)
    examples = [example for split in reading.splits for example in reading.examples(split)]
    assert table.classes == reading.classes and table.ids.tolist() == [example.id for example in examples]
    assert table.labels.tolist() == [example.label for example in examples]
    assert table.subjects.tolist() == [example.subject for example in examples]
    assert table.fetch(np.arange(len(table))[::-1]) == [example.image for example in examples[::-1]]
    for target, columns in reading.targets.items():
        expected = np.stack([example.targets[target] for example in examples])
        np.testing.assert_array_equal(table.targets[target], expected)
        assert table.columns[target] == columns
    if name == 'affectnet':
        assert np.isnan(table.targets['valence_arousal']).any()
    if name == 'ckplus':
        assert set(splitting.assign(table)) == {'train', 'validation', 'test'}


@pytest.mark.parametrize('size', ['300k', '1500k', '2200k'])
def test_a_disk_that_is_really_full(tmp_path, shared_data, size):
    """A file system of that size; the set takes 1.9 MB, its examination more."""
    command = f"""mount -t tmpfs -o size={size} tmpfs {tmp_path} || exit 77
{sys.executable} -m fer_jax.prepare_dataset --dataset ckplus --source {shared_data / 'ck48'} --root {tmp_path}
status=$?
find {tmp_path} -name 'dataset_info.json' | wc -l; find {tmp_path} -name 'incomplete*' | wc -l; exit $status"""
    if shutil.which('unshare') is None:
        pytest.skip('no unshare here')
    root = Path(__file__).parents[2]
    run = subprocess.run(['unshare', '-m', 'sh', '-c', command], cwd=root, capture_output=True, text=True)
    if run.returncode == 77 or 'unshare' in run.stderr:
        pytest.skip('may not mount a file system here')
    assert run.returncode == 2 and 'Traceback' not in run.stderr
    assert run.stderr.count('fer_jax:') == 1 and ('is full' in run.stderr or 'No space left' in run.stderr)
    complete = size == '2200k'
    assert run.stdout.split()[-2:] == [str(int(complete)), '0']


def test_nothing_half_prepared_is_taken_for_complete(tmp_path, monkeypatch):
    """The disk is full in the middle; then the same again with space."""
    for number in range(20):
        picture(tmp_path / 'jaffe' / f'KA.AN1.{number}.tiff', number)
    whole = jaffe.read(tmp_path / 'jaffe')

    def stops(split):
        for number, example in enumerate(whole.examples(split)):
            if number == 10:
                raise OSError(28, 'No space left on device')
            yield example

    broken = type(whole)(whole.classes, whole.splits, stops)
    with monkeypatch.context() as patched:
        patched.setattr(jaffe, 'read', lambda source: broken)
        with pytest.raises(UserError, match='is full: nothing of jaffe is kept'):
            prepared.prepare('jaffe', tmp_path / 'jaffe', tmp_path / 'sets')
    assert not prepared.is_prepared('jaffe', tmp_path / 'sets')
    with pytest.raises(UserError, match='jaffe is not prepared'):
        prepared.open_table('jaffe', tmp_path / 'sets')
    shutil.rmtree(tmp_path / 'sets' / 'jaffe', ignore_errors=True)
    (tmp_path / 'sets' / 'jaffe' / 'incomplete.XY_1.0.0').mkdir(parents=True)  # of a process that was killed
    prepared.prepare('jaffe', tmp_path / 'jaffe', tmp_path / 'sets')
    assert len(prepared.open_table('jaffe', tmp_path / 'sets')) == 20
    assert not list((tmp_path / 'sets' / 'jaffe').glob('incomplete*'))
