import json
import os

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import dataset
from fer_jax.data.imaging.codec import decode
from fer_jax.data.sources import folder, manifest
from fer_jax.errors import UserError

ROLES = {'train': 'train', 'validation': 'validation', 'test': 'test'}


@pytest.fixture
def images(tmp_path):
    """Twelve plain images, each of its own grey."""
    for index in range(12):
        Image.new('L', (10, 10), 20 * index).save(tmp_path / f'{index:02d}.png')
    return tmp_path


def write(folder, text, name='faces.csv'):
    path = folder / name
    path.write_text(text)
    return path


def load(path, **changes):
    settings = {'manifest': str(path), 'splits': ROLES, 'image_size': 8, 'channels': 1, 'root': path.parent}
    return dataset.load_dataset(**(settings | changes))


def test_paths_labels_splits_subjects_groups_and_weights(images):
    splits = ['train'] * 8 + ['validation'] * 2 + ['test'] * 2
    lines = ['path,label,split,subject,group,weight']
    lines += [
        f'{images / f"{at:02d}.png" if at % 2 else f"{at:02d}.png"},{"sad" if at % 3 else "happy"},'
        f'{split},person{at % 4},old,{0.5 + at}'
        for at, split in enumerate(splits)
    ]
    data = load(write(images, '\n'.join(lines)))
    assert data.classes == ('happy', 'sad') and data.name == 'faces'
    train = data.splits['train']
    assert train.labels.tolist() == [0, 1, 1, 0, 1, 1, 0, 1]
    assert train.subjects.tolist()[:5] == ['person0', 'person1', 'person2', 'person3', 'person0']
    assert set(train.groups) == {'old'} and train.weights.tolist() == [0.5 + at for at in range(8)]
    assert [len(split.ids) for split in data.splits.values()] == [8, 2, 2]
    assert train.read(np.arange(8))[:, 0, 0, 0].tolist() == [20 * at for at in range(8)]


def test_votes_in_csv_and_jsonl_are_the_same(images):
    shares = np.random.default_rng(0).dirichlet(np.ones(3), 12).round(3)
    text = 'path,p_sad,p_happy,p_fear\n' + ''.join(f'{at:02d}.png,{a},{b},{c}\n' for at, (a, b, c) in enumerate(shares))
    lines = [
        json.dumps({'path': f'{at:02d}.png', 'label': {'sad': a, 'happy': b, 'fear': c}})
        for at, (a, b, c) in enumerate(shares)
    ]
    first = manifest.read_manifest(write(images, text))
    second = manifest.read_manifest(write(images, '\n'.join(lines), 'faces.jsonl'))
    assert first.classes == second.classes == ('sad', 'happy', 'fear')
    np.testing.assert_array_equal(first.labels, shares.argmax(1))
    for table in (first, second):
        np.testing.assert_allclose(table.targets['votes'], shares, atol=1e-6)
    data = load(images / 'faces.csv', target='cross_entropy', splits={'train': 'train'})
    assert data.splits['train'].distributions.shape[1] == 3


def test_what_is_written_reads_back(images):
    for name in ('x', 'y'):
        (images / 'set' / name).mkdir(parents=True)
    for index in range(12):
        (images / f'{index:02d}.png').rename(images / 'set' / 'xy'[index % 2] / f's{index // 4}_{index}.png')
    table = folder.scan(images / 'set', subject=r'(s\d)_')
    keep = np.arange(12) != 5
    manifest.write_manifest(images / 'kept.csv', table, keep, images / 'set')
    again = manifest.read_manifest(images / 'kept.csv')
    assert again.classes == table.classes
    np.testing.assert_array_equal(again.labels, table.labels[keep])
    np.testing.assert_array_equal(again.subjects, table.subjects[keep])
    np.testing.assert_array_equal(again.digests, table.digests[keep])


def test_votes_weights_and_groups_are_kept(images):
    rows = ''.join(f'{at:02d}.png,g{at % 2},{1 + at},{at % 3},{1.5}\n' for at in range(12))
    first = manifest.read_manifest(write(images, 'path,group,weight,p_sad,p_fear\n' + rows))
    manifest.write_manifest(images / 'again.csv', first, np.ones(12, bool), images)
    again = manifest.read_manifest(images / 'again.csv')
    assert again.classes == first.classes
    for name in ('labels', 'groups', 'weights', 'digests'):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    np.testing.assert_array_equal(again.targets['votes'], first.targets['votes'])


def test_rows_without_a_label_are_not_trained_on(images):
    text = 'path,label\n' + ''.join(f'{at:02d}.png,{"" if at < 2 else "ab"[at % 2]}\n' for at in range(12))
    assert manifest.read_manifest(write(images, text)).labels.tolist()[:4] == [-1, -1, 0, 1]
    data = load(images / 'faces.csv')
    assert sum(len(split.ids) for split in data.splits.values()) == 10


def test_a_folder_without_labels(images):
    table = folder.unlabelled(images)
    assert len(table) == 12 and set(table.labels) == {-1} and table.classes == ()
    with pytest.raises(UserError, match='holds no images'):
        (images / 'empty').mkdir()
        folder.unlabelled(images / 'empty')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('file,label\n00.png,a\n', "it has no column path; it has file, label; rename its column 'file' to path"),
        ('path,label,colour\n00.png,a,red\n', "remove its column 'colour'"),
        ('path,label\n00.png,a\n01.png\n', 'row 2: 2 cells expected'),
        ('path,label\n00.png,a\n,b\n', 'row 2: 2 cells expected, a path'),
        ('path,label,split\n00.png,a,train\n01.png,b,\n', 'row 2: split is empty'),
        ('path,label,weight\n00.png,a,-1\n', "row 1: weight is '-1'"),
        ('path,p_a,p_b\n00.png,1,x\n', "row 1: p_b is 'x'"),
        ('path,label,p_a\n00.png,b,1\n', 'both a label'),
        ('path,label\n00.png,a\n00.png,b\n', "'00.png' stands there more than once"),
        ('path,label\n', 'has no rows'),
        ('path,label\n0\0.png,a\n', 'is no text'),
    ],
)
def test_a_malformed_manifest_is_named(images, text, message):
    with pytest.raises(UserError) as caught:
        manifest.read_manifest(write(images, text))
    assert message in str(caught.value)


def test_bom_crlf_and_malformed_json(images):
    (images / 'faces.csv').write_bytes('\ufeffpath,label\r\n00.png,a\r\n01.png,b\r\n'.encode())
    assert manifest.read_manifest(images / 'faces.csv').labels.tolist() == [0, 1]
    with pytest.raises(UserError, match='row 2: no JSON'):
        manifest.read_manifest(write(images, '{"path": "00.png", "label": "a"}\n{"path"\n', 'faces.jsonl'))
    for row, said in (
        ('{"path": "\\u0000.png", "label": "a"}', 'no object with a path'),
        ('{"path": "00.png", "label": "\\ud800"}', 'no JSON'),
        ('{"path": "00.png", "label": "a", "weight": 1' + 400 * '0' + '}', 'weight is 1000'),
        ('[' * 100_000, 'no JSON'),
    ):
        with pytest.raises(UserError, match=f'row 1: {said}'):
            manifest.read_manifest(write(images, row + '\n', 'faces.jsonl'))
    with pytest.raises(UserError, match='is not a file'):
        manifest.read_manifest(images / 'none.csv')


def test_one_source_at_a_time(images):
    with pytest.raises(UserError, match='give one, the others empty'):
        load(images / 'faces.csv', dir=str(images))
    with pytest.raises(UserError, match='give one, the others empty'):
        load(images / 'faces.csv', manifest='')


LINES = [f'{at:02d}.png,{"ab"[at % 2]},{("train", "val", "Test")[at // 4]}' for at in range(12)]


@pytest.mark.parametrize(
    'content',
    [
        '\n'.join(['path;label;split', *(line.replace(',', ';') for line in LINES)]).encode(),
        '\n'.join(['path\tlabel\tsplit', *(line.replace(',', '\t') for line in LINES)]).encode(),
        '\n'.join([',path,label,split', *(f'{at},{line}' for at, line in enumerate(LINES))]).encode(),
        '\n'.join(['Unnamed: 0,path,label,split', *(f'{at},{line}' for at, line in enumerate(LINES))]).encode(),
        '\r\n'.join(['path,label,split', *LINES, ',,', '']).encode('utf-16'),
        '\ufeff"path", "label", "split"\n'.encode()
        + '\n'.join('"' + line.replace(',', '", "') + '"' for line in LINES).encode(),
        '\n'.join(['path,label,split,', *(f'.\\{line},' for line in LINES)]).encode(),
        '\n'.join(['path , label,split ', *(line.replace(',', ' , ') for line in LINES)]).encode(),
    ],
    ids=['semicolons', 'tabs', 'index', 'named index', 'Excel', 'quotes', 'Windows', 'spaces'],
)
def test_manifests_as_other_programs_write_them(images, content):
    (images / 'faces.csv').write_bytes(content)
    table = manifest.read_manifest(images / 'faces.csv')
    assert table.labels.tolist() == [0, 1] * 6 and table.classes == ('a', 'b')
    assert table.splits.tolist() == ['train'] * 4 + ['validation'] * 4 + ['test'] * 4
    assert [decode(data, None, 1, '')[0, 0, 0] for data in table.fetch(np.arange(12))] == [20 * at for at in range(12)]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'filename,emotion,Usage\n00.png,a,train\n',
            "'filename' to path; rename its column 'emotion' to label; rename",
        ),
        ('path,label\nC:\\faces\\00.png,a\n', r"'C:\\faces\\00.png' is a path of Windows; write paths relative"),
        ('path,label\nhttps://example.org/00.png,a\n', 'is a URL; download the image'),
        ('path,label,weight\n00.png,a,"0,5"\n', 'expected a number of at least 0, with a decimal point'),
        ('path,label\n' + ','.join(100_000 * 'x') + '\n', '2 cells expected, a path among them; it has 100000'),
        (','.join(f'p_{at}' for at in range(100_000)) + '\n', '100,000 columns, at most 1,000 are read'),
        ('path,label,label\n00.png,a,b\n', "it has the column 'label' twice"),
        ('path,label,split\n00.png,a,train\n01.png,,holdout\n', "row 2: split is 'holdout', expected one of train"),
        ('path,label\n' + 'x' * 2_000_000, '1,048,577 characters in line 2, at most 1,048,576 are read'),
        ('path,label\n00.png,a\n,b\n' + 'x\n' * 9, 'row 2: 2 cells'),
    ],
)
def test_a_manifest_that_cannot_be_read_is_answered_by_the_cure(images, text, message):
    with pytest.raises(UserError) as caught:
        manifest.read_manifest(write(images, text))
    assert message in str(caught.value)
    if text.count('x\n') == 9:
        assert 'row 3' in str(caught.value) and 'and 5 more' in str(caught.value)


def test_a_label_in_another_encoding_is_named(images):
    (images / 'faces.csv').write_bytes('path,label\n00.png,fâché\n01.png,b\n'.encode('latin-1'))
    with pytest.raises(UserError, match='row 1: the label .* is no UTF-8; save the file as UTF-8'):
        manifest.read_manifest(images / 'faces.csv')


def test_what_is_no_file_of_this_size_is_refused_without_being_read(images):
    os.mkfifo(images / 'pipe.png')
    with (images / 'sparse.png').open('wb') as file:
        file.truncate(1 << 40)
    names = ['/dev/zero', 'pipe.png', 'sparse.png', *(f'{at:02d}.png' for at in range(9))]
    write(images, 'path,label\n' + ''.join(f'{name},{"ab"[at % 2]}\n' for at, name in enumerate(names)))
    with pytest.raises(UserError, match='3 of the 12 images') as caught:
        load(images / 'faces.csv')
    message = str(caught.value)
    assert message.count('it is no regular file') == 2 and 'it has 1,099,511,627,776 bytes, at most' in message
    os.truncate(images / 'faces.csv', 1 << 40)
    with pytest.raises(UserError, match='it has 1,099,511,627,776 bytes, at most'):
        manifest.read_manifest(images / 'faces.csv')
