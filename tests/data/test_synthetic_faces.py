"""The embedded data set: FACS prototypes, splits without shared faces, the same bytes everywhere, difficulty."""

import hashlib
import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.sets import synthetic_faces as faces
from fer_jax.data.sources import prepared

# The table of EMFACS (Friesen and Ekman, 1983) as it is usually reproduced
PUBLISHED = {
    'happy': '6+12', 'sad': '1+4+15', 'surprise': '1+2+5+26', 'fear': '1+2+4+5+20+26',
    'angry': '4+5+7+23', 'disgust': '9+15+16', 'neutral': '',
}  # fmt: skip
DIGESTS = {
    ('train', 0): 'e2ea34e7d489c70389b0450f46bc983d60feadfde4272032d9fe297115b128e1',
    ('train', 2799): '35f4824aec3856ee7a9e1af682c8ca9af8167e18eb67c4c89b05d3f32e675f6d',
    ('validation', 30): 'f588b3808edf16d80debc3a2c0b937a59e799d6d11dcee82de890d40361bae72',
    ('test', 5): 'e3b16caf6ca6867fcfbfc6896f3f9c81abfc4f03216898d6ddeb7ca6fb692a38',
}


def digest(split: str, index: int) -> str:
    return hashlib.sha256(faces.images(split, [index]).tobytes()).hexdigest()


@pytest.fixture(scope='module')
def train() -> tuple[np.ndarray, np.ndarray]:
    return faces.images('train', range(1400)), np.arange(1400) % 7


def test_classes_are_in_the_order_of_fer2013():
    assert faces.CLASSES == ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')


@pytest.mark.parametrize('expression', PUBLISHED)
def test_an_expression_is_its_published_prototype(expression):
    published = {int(unit) for unit in PUBLISHED[expression].split('+') if unit}
    first = faces.CLASSES.index(expression)
    for index in range(first, 280, 7):
        assert faces.label_of(index) == first
        levels = dict(zip(faces.ACTION_UNITS, faces.intensities('validation', index), strict=True))
        assert {unit for unit, level in levels.items() if level > 0} - {25} == published
        assert all(0.4 < levels[unit] <= 1 for unit in published)


@pytest.mark.parametrize('unit', faces.ACTION_UNITS)
def test_every_action_unit_moves_the_face(unit):
    """And only where it should: brows and lids above the nose, mouth and jaw below."""
    face = faces.describe('train', 6) | {f'au{k}': 0.0 for k in faces.ACTION_UNITS}
    face |= dict.fromkeys(('yaw', 'pitch', 'roll', 'shift_x', 'shift_y', 'block', 'blur', 'age'), 0.0)
    face['scale'] = 1.0
    pair = [face, face | {f'au{unit}': 1.0}]
    still, moved = faces.render({name: np.stack([f[name] for f in pair]) for name in face}).astype(int)
    rows = np.abs(moved - still).sum(axis=(1, 2))
    upper, lower = rows[:36].sum(), rows[44:].sum()
    assert rows.sum() > 2000
    if unit in (1, 2, 4, 5, 7):
        assert lower == 0
    if unit in (15, 16, 20, 23, 25, 26):
        assert upper < 0.02 * rows.sum()  # a falling jaw changes the light at the edge of the face


def test_splits_share_no_identity_and_are_balanced():
    seen = {s: {faces.identity_of(s, i) for i in range(faces.examples(s))} for s in faces.IDENTITIES}
    assert {s: len(ids) for s, ids in seen.items()} == {'train': 400, 'validation': 100, 'test': 150}
    assert len(set.union(*seen.values())) == 650
    for split in seen:
        labels = [faces.label_of(i) for i in range(faces.examples(split))]
        assert set(np.bincount(labels)) == {len(labels) / 7}
        pairs = {(faces.identity_of(split, i), faces.label_of(i)) for i in range(faces.examples(split))}
        assert len(pairs) == len(labels)  # a face says nothing of its label


def test_images_of_an_identity_share_the_face_and_nothing_else():
    first, second, other = (faces.describe('test', index) for index in (0, 1, 7))
    for name in ('skin', 'hair', 'glasses', 'jaw', 'nose_width', 'iris', 'brow_y'):
        np.testing.assert_array_equal(first[name], second[name])
    assert first['jaw'] != other['jaw']
    assert all(first[name] != second[name] for name in ('yaw', 'scale', 'light_x', 'exposure', 'sensor'))


def test_bytes_are_those_of_every_machine():
    assert {key: digest(*key) for key in DIGESTS} == DIGESTS


def test_bytes_are_the_same_in_another_process_and_batch():
    program = (
        'import hashlib; from fer_jax.data.sets import synthetic_faces as f;'
        "print(*[hashlib.sha256(x.tobytes()).hexdigest() for x in f.images('test', [40, 3, 1049])])"
    )
    there = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True)
    assert there.stdout.split() == [digest('test', index) for index in (40, 3, 1049)]


def test_an_image_does_not_depend_on_its_neighbours(train):
    """Parts are drawn in rectangles that depend on the batch: nothing may reach beyond them."""
    for index in range(0, 1400, 20):
        np.testing.assert_array_equal(faces.images('train', [index])[0], train[0][index])


def test_no_image_is_blank_and_none_occurs_twice(train):
    images, _ = train
    assert images.shape == (1400, 64, 64, 3) and images.dtype == np.uint8
    assert images.astype(np.float32).std(axis=(1, 2, 3)).min() > 12
    assert np.median(images.mean(axis=(1, 2, 3))) == pytest.approx(115, abs=30)
    assert len({image.tobytes() for image in images}) == 1400


def test_noise_has_unit_variance():
    noise = np.stack([faces.describe('train', index)['noise'] for index in range(40)])
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.04


@pytest.mark.slow
def test_pixels_alone_do_not_solve_it(train):
    """Logistic regression on 1,400 training images, scored on all 700 validation images: above chance, under 60 %."""
    linear = pytest.importorskip('sklearn.linear_model')
    images, labels = train
    held = faces.images('validation', range(700)), np.arange(700) % 7
    pixels = [x[:, ::2, ::2].reshape(len(x), -1) / np.float32(255) for x in (images, held[0])]
    mean, deviation = pixels[0].mean(axis=0), pixels[0].std(axis=0)
    model = linear.LogisticRegression(C=1e-4, max_iter=200).fit((pixels[0] - mean) / deviation, labels)
    score = model.score((pixels[1] - mean) / deviation, held[1])
    assert 1 / 7 + 3 * np.sqrt(6 / 49 / 700) < score < 0.60


def test_the_builder_writes_and_reads_without_tensorflow(tmp_path, monkeypatch):
    few = {'train': range(0, 10), 'validation': range(400, 402), 'test': range(500, 503)}
    monkeypatch.setattr(faces, 'IDENTITIES', few)
    table = prepared.open_table('synthetic_faces', tmp_path)
    splits, counts = np.unique(table.splits, return_counts=True)
    assert dict(zip(splits.tolist(), counts.tolist(), strict=True)) == {'train': 70, 'validation': 14, 'test': 21}
    assert table.classes == faces.CLASSES and table.columns['action_units'][0] == 'AU1'
    first = int(np.argmax(table.splits == 'test'))
    for index in (0, 8, 20):  # stored in order
        at = first + index
        pixels = np.asarray(Image.open(io.BytesIO(table.fetch(np.array([at]))[0])))
        np.testing.assert_array_equal(pixels, faces.images('test', [index])[0])
        np.testing.assert_array_equal(table.targets['action_units'][at], faces.intensities('test', index))
        assert (table.ids[at], table.labels[at], table.subjects[at]) == (
            f'test-{index:05d}',
            index % 7,
            f'{500 + index // 7}',
        )
    assert 'tensorflow' not in sys.modules
