import json

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import dataset
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
        ('file,label\n00.png,a\n', 'has no column path; it has file, label'),
        ('path,label,colour\n00.png,a,red\n', "unknown column 'colour'"),
        ('path,label\n00.png,a\n01.png\n', 'row 2: 2 cells expected'),
        ('path,label\n00.png,a\n,b\n', 'row 2: 2 cells expected, a path'),
        ('path,label,split\n00.png,a,train\n01.png,b,\n', "row 2: split is ''"),
        ('path,label,weight\n00.png,a,-1\n', "row 1: weight is '-1'"),
        ('path,p_a,p_b\n00.png,1,x\n', "row 1: p_b is 'x'"),
        ('path,label,p_a\n00.png,b,1\n', 'both a label'),
        ('path,label\n00.png,a\n00.png,b\n', "lists '00.png' 2 times"),
        ('path,label\n00.png,a\nlost.png,b\n', 'lost.png cannot be read'),
        ('path,label\n', 'has no rows'),
        ('path,label\n0\0.png,a\n', 'row 1: 2 cells expected, a path'),
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
