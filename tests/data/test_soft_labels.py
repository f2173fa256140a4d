"""FER+ votes become targets as in the published code of Barsoum et al. 2016, here written out row by row."""

import gzip
import tarfile
import zipfile

import numpy as np
import pytest

from fer_jax.data import dataset
from fer_jax.data.sets import ferplus
from fer_jax.data.sources import prepared
from fer_jax.data.tables import soft_labels
from fer_jax.errors import UserError
from tests.data.test_splitting import table_of

COLUMNS = (*ferplus.CLASSES, *soft_labels.NO_EXPRESSION)


def processed(raw, mode):
    """One row after the rules of the paper, in plain Python; all on 'unknown' where the row is discarded."""
    unknown = [0.0] * 8 + [1.0, 0.0]
    raw = [0.0 if vote <= 1 else float(vote) for vote in raw]
    total, target = sum(raw), [0.0] * 10
    if total == 0:
        return unknown
    if mode == 'majority':
        target[raw.index(max(raw))] = max(raw)
        if max(raw) <= 0.5 * total:
            return unknown
    elif mode == 'multi_target':
        target = [vote if vote >= 0.3 * total else 0.0 for vote in raw]
        if sum(target) <= 0.5 * total:
            return unknown
    else:
        part, count, valid = 0.0, 0, True
        while part < 0.75 * total and count < 3 and valid:
            best = max(raw)
            for place in range(10):
                if raw[place] == best:
                    target[place], raw[place] = best, 0
                    part, count = part + best, count + 1
                    if place >= 8:
                        valid = False
                        if sum(target) > best:
                            target[place], count = 0, count - 1
                        break
        if sum(target) <= 0.5 * total or count > 3:
            return unknown
    return [vote / sum(target) for vote in target]


@pytest.fixture(scope='module')
def votes():
    """Ten votes a row, few columns much likelier than others, so that ties and outliers abound."""
    generator = np.random.default_rng(0)
    shares = generator.dirichlet(np.full(10, 0.3), 3000)
    return np.stack([generator.multinomial(10, row) for row in shares]).astype(np.float32)


def table(votes):
    labels = soft_labels.majority(votes, 8)
    made = table_of('train', np.maximum(labels, 0))
    columns = {'votes': COLUMNS}
    return made.take(
        np.arange(len(votes)), classes=ferplus.CLASSES, labels=labels, targets={'votes': votes}, columns=columns
    )


@pytest.mark.parametrize('mode', ['probability', 'cross_entropy', 'multi_target'])
def test_distributions_are_the_published_ones(votes, mode):
    ours, usable = soft_labels.distributions(table(votes), mode)
    for row, target, kept in zip(votes, ours, usable, strict=True):
        expected = processed(row.tolist(), mode)
        assert kept == (int(np.argmax(expected)) < 8), row
        if kept:
            emotions = np.array(expected[:8]) / sum(expected[:8])
            np.testing.assert_allclose(target, emotions, atol=1e-6, err_msg=str(row))
    assert 0.2 < usable.mean() < 0.95


def test_the_label_is_the_majority(votes):
    expected = [int(np.argmax(processed(row.tolist(), 'majority'))) for row in votes]
    expected = [label if label < 8 else -1 for label in expected]
    assert soft_labels.majority(votes, 8).tolist() == expected


def test_shares_are_no_counts():
    shares = np.array([[1, 0, 0], [0.6, 0.4, 0], [0.2, 0.4, 0.4]], np.float32)
    np.testing.assert_array_equal(soft_labels.without_outliers(shares), shares)


def test_wrong_targets_are_named(votes):
    with pytest.raises(UserError, match="data.target='soft' is unknown"):
        soft_labels.distributions(table(votes), 'soft')
    with pytest.raises(UserError, match='needs votes, made has labels'):
        soft_labels.distributions(table_of('train', [0, 1]), 'probability')


@pytest.mark.parametrize('archive', ['archive.zip', 'fer2013.tar.gz', 'fer2013.csv.gz', 'icml_face_data.csv'])
def test_votes_lie_beside_an_archive_of_the_images(tmp_path, archive):
    usages = ['Training', 'PublicTest', 'PrivateTest'] * 3
    pixels = [' '.join(map(str, np.random.default_rng(at).integers(0, 256, 48 * 48))) for at in range(9)]
    images = 'emotion,pixels,Usage\n' + ''.join(f'0,{row},{usage}\n' for row, usage in zip(pixels, usages, strict=True))
    (tmp_path / 'notes.zip').write_bytes(b'no archive')
    if archive.endswith('.zip'):
        with zipfile.ZipFile(tmp_path / archive, 'w') as packed:
            packed.writestr('fer2013/fer2013.csv', images)
    elif archive.endswith('.tar.gz'):
        (tmp_path / 'unpacked').write_text(images)
        with tarfile.open(tmp_path / archive, 'w:gz') as tar:
            tar.add(tmp_path / 'unpacked', 'fer2013/fer2013.csv')
    else:
        (tmp_path / archive).write_bytes(gzip.compress(images.encode()) if 'gz' in archive else images.encode())
    counts = ','.join(map(str, [8, 2, *[0] * 8]))
    (tmp_path / 'FERPlus').mkdir()
    (tmp_path / 'FERPlus' / 'fer2013new.csv').write_text(
        'Usage,Image name,'
        + ','.join(ferplus.COLUMNS)
        + '\n'
        + ''.join(f'{usage},x.png,{counts}\n' for usage in usages)
    )
    reading = ferplus.read(tmp_path)
    assert reading.splits == {'train': 3, 'validation': 3, 'test': 3}
    assert {example.label for example in reading.examples('train')} == {0}


@pytest.mark.slow
def test_the_real_set(shared_data, tmp_path):
    """Counts of the file, 'Surprise' of FER2013 mostly 'surprise' of FER+, and 7 classes without contempt."""
    prepared.prepare('ferplus', shared_data, tmp_path)
    settings = {'name': 'ferplus', 'image_size': 64, 'channels': 1, 'root': tmp_path}
    roles = {role: role for role in ('train', 'validation', 'test')}
    data = dataset.load_dataset(splits=roles, **settings)
    assert {role: len(split.labels) for role, split in data.splits.items()} == {
        'train': 25060, 'validation': 3199, 'test': 3153,
    }  # fmt: skip
    assert set(data.splits['test'].subsets) == {'clean', 'certain'}
    sizes = {}
    for target in ('probability', 'multi_target'):
        train = dataset.load_dataset(splits={'train': 'train'}, target=target, **settings).splits['train']
        np.testing.assert_allclose(train.distributions.sum(1), 1, rtol=1e-5)
        sizes[target] = len(train.labels)
    assert sizes['probability'] > 25060 and sizes['multi_target'] > 25060
    seven = dataset.load_dataset(splits=roles, drop_classes=('contempt',), target='cross_entropy', **settings)
    assert 'contempt' not in seven.classes and len(seven.classes) == 7
    assert seven.splits['train'].distributions.shape[1] == 7
    assert seven.fingerprint != data.fingerprint
