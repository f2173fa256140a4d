import gzip
import io
import json
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest

from fer_jax import prepare_dataset
from fer_jax.data import dataset
from fer_jax.data.sets import fer2013
from fer_jax.errors import UserError

ROLES = {'train': 'train', 'validation': 'validation', 'test': 'test'}


def prepare(source, root):
    return prepare_dataset.main(['--dataset', 'fer2013', '--source', str(source), '--root', str(root)])


def load(root):
    return dataset.load_dataset(name='fer2013', splits=ROLES, image_size=48, channels=1, root=root)


def line(emotion=0, fill=0, usage='Training', count=48 * 48):
    return f'{emotion},{" ".join([str(fill)] * count)},{usage}'


def text(*lines):
    return '\n'.join(['emotion,pixels,Usage', *lines]) + '\n'


SMALL = text(
    line(0, 10), line(3, 20), line(3, 20), line(0, 30, 'PublicTest'),
    line(0, 20, 'PrivateTest'), line(3, 40, 'PrivateTest'), line(3, 40, 'PrivateTest'),
)  # fmt: skip


def contain(kind, content, folder):
    """fer2013.csv as `kind`."""
    data = content.encode()
    path = folder / f'fer2013.{kind}'
    if kind == 'csv.gz':
        path.write_bytes(gzip.compress(data))
    elif kind == 'zip':
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('challenges/fer2013.csv', data)
    elif kind == 'tar.gz':
        with tarfile.open(path, 'w:gz') as archive:
            member = tarfile.TarInfo('fer2013/fer2013.csv')
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    else:
        path.write_bytes(data)
    return path


@pytest.mark.parametrize('kind', ['csv', 'csv.gz', 'zip', 'tar.gz'])
def test_every_container_prepares_the_same_set(kind, tmp_path, capsys):
    source = contain(kind, SMALL, tmp_path)
    assert prepare(source, tmp_path / 'sets') == 0
    printed = capsys.readouterr().out
    assert '(not 3,995)' in printed and 'of 21 differ from the official ones' in printed
    data = load(tmp_path / 'sets')
    assert {role: len(split.ids) for role, split in data.splits.items()} == {'train': 3, 'validation': 1, 'test': 3}
    test = data.splits['test']
    by_id = dict(zip(test.ids, test.subsets['clean'], strict=True))
    assert by_id == {'row00005': False, 'row00006': True, 'row00007': True}
    images = dict(zip(test.ids, test.read(np.arange(3)), strict=True))
    assert (images['row00005'] == 20).all() and (images['row00006'] == 40).all()


def test_bom_crlf_and_spaces_in_the_header(tmp_path):
    path = tmp_path / 'fer2013.csv'
    path.write_bytes('\ufeff'.encode() + SMALL.replace('\n', '\r\n').replace(',pixels,', ', pixels,').encode())
    rows = list(fer2013.rows(path))
    assert [row.label for row in rows] == [0, 3, 3, 0, 0, 3, 3]
    assert [row.split for row in rows[3:5]] == ['validation', 'test']


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (text(line(), line(count=2303)), 'row 2: 2303 pixels, expected 2304'),
        (text(line(), line(), line(fill=256)), 'row 3: a pixel is 256'),
        (text(line(fill='x')), 'row 1: pixels are not whole numbers'),
        (text(line(emotion=7)), "row 1: emotion is '7'"),
        (text(line(usage='Test')), "row 1: Usage is 'Test'"),
        (text('3'), 'row 1: Usage is'),
        ('emotion,pixels\n', 'has no column Usage'),
        ('', 'has no column Usage, emotion, pixels'),
    ],
)
def test_a_malformed_row_is_named_by_its_number(tmp_path, capsys, content, message):
    path = contain('csv', content, tmp_path)
    assert prepare(path, tmp_path / 'sets') == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count('\n') == 1
    with pytest.raises(UserError, match='fer2013 is not prepared'):
        load(tmp_path / 'sets')


@pytest.mark.parametrize('harm', ['stream', 'password', 'compression', 'line', 'no text'])
def test_archives_made_to_harm_are_one_message(tmp_path, harm):
    path = contain('csv.gz' if harm in ('stream', 'line') else 'zip', SMALL, tmp_path)
    data = bytearray(path.read_bytes())
    if harm == 'stream':
        data[15:60] = bytes(45)
    elif harm == 'line':  # unpacks to a thousand times its size
        data = gzip.compress(b'emotion,pixels,Usage\n' + bytes(50_000_000), 1)
    elif harm == 'no text':
        data = bytearray(contain('csv', '\0"' * 300, tmp_path).read_bytes())
    else:
        for head, at in ((b'PK\3\4', 6), (b'PK\1\2', 8)):
            where = data.index(head) + at + (2 if harm == 'compression' else 0)
            data[where] = 1 if harm == 'password' else 99
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(UserError, match='cannot be read|at most 100,000 are read|has no column'):
        list(fer2013.rows(path))
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize('kind', ['missing', 'truncated', 'empty zip', 'unknown set', 'no source'])
def test_a_wrong_source_is_named(tmp_path, capsys, kind):
    path, arguments, message = tmp_path / 'fer2013.csv', ['--dataset', 'fer2013'], 'is not a file'
    if kind == 'truncated':
        path = contain('csv.gz', SMALL, tmp_path)
        path.write_bytes(path.read_bytes()[:-20])
        message = 'cannot be read'
    elif kind == 'empty zip':
        path = tmp_path / 'fer2013.zip'
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('train.csv', 'x')
        message = 'holds no fer2013.csv; it holds train.csv'
    elif kind == 'unknown set':
        arguments, message = ['--dataset', 'fer2014'], "data set 'fer2014' is unknown; there are fer2013"
    if kind == 'no source':
        message = '--source is missing'
    else:
        arguments += ['--source', str(path)]
    assert prepare_dataset.main([*arguments, '--root', str(tmp_path / 'sets')]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_set_has_the_published_counts(shared_data, tmp_path, capsys):
    source = shared_data / 'fer2013' / 'fer2013.csv.gz'
    assert prepare(source, tmp_path) == 0
    printed = capsys.readouterr().out
    assert 'all 21 are the official ones' in printed
    assert 'test, clean: 3,275 of 3,589' in printed
    data = dataset.load_dataset(name='fer2013', splits=ROLES, image_size=64, channels=3, root=tmp_path)
    train = data.splits['train']
    assert train.shape == (48, 48, 1)
    row = next(fer2013.rows(source))
    index = list(train.ids).index('row00001')
    images = train.read(np.arange(len(train.labels)))
    np.testing.assert_array_equal(images[index, ..., 0], row.pixels)
    assert train.labels[index] == row.label

    findings = json.loads(next(tmp_path.rglob('findings.json')).read_text())
    assert sum(blank['constant'] for blank in findings['blank']) == 12
    exact = findings['duplicates']
    assert (exact['groups'], exact['conflicting'], exact['across_splits']) == (1514, 57, 557)
    assert exact['leaks']['test']['train'] == 288 and exact['leaks']['test']['any'] == 314
    assert exact['leaks']['validation'] == {'any': 280, 'train': 280}
    statistics = findings['statistics']
    whole = images / 255
    np.testing.assert_allclose([*statistics['mean'], *statistics['std']], [whole.mean(), whole.std()], atol=1e-6)
    assert not {'unreadable', 'tiny', 'odd_shaped', 'unusual'} & {kind for kind, value in findings.items() if value}
