"""Who is who: synthetic people whose places and appearance are known."""

import itertools
import math

import numpy as np
import pytest

from fer_jax.data.imaging.faces import Face
from fer_jax.inference import tracking
from fer_jax.inference.face_pipeline import FacePrediction
from fer_jax.inference.media import Frame, Source

RATE = 25
FILM = Source('film.mp4', 0, RATE)
SIDE = 48


def texture(number):
    """A face-like pattern of its own colours, smooth as faces are."""
    rng = np.random.default_rng(number)
    return np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((SIDE // 4, SIDE // 4, 1))).astype(np.uint8)


def film(paths, seconds, *, seen=lambda person, second: True, jitter=2.0, rate=RATE, scene=0, twins=False):
    """Yields frames with one face a person, at `paths[person](second)`; somebody in front hides who is behind.

    The truth is the number of the person, kept in the confidence.
    """
    rng = np.random.default_rng(0)
    blocks = np.random.default_rng(scene).integers(0, 256, (6, 8, 3))
    background = np.kron(blocks, np.ones((60, 80, 1))).astype(np.uint8)
    for number in range(round(seconds * rate)):
        second = number / rate
        image, predictions, places = background.copy(), [], []
        for person, path in enumerate(paths):  # later ones are in front
            x, y = (round(value) for value in path(second))
            if not seen(person, second) or not (0 <= x <= 640 - SIDE and 0 <= y <= 360 - SIDE):
                continue
            image[y : y + SIDE, x : x + SIDE] = texture(0 if twins else person)
            places.append((person, x, y))
        for index, (person, x, y) in enumerate(places):
            if any(math.dist((x, y), other[1:]) < 0.6 * SIDE for other in places[index + 1 :]):
                continue
            box = (*(np.array([x, y]) + rng.normal(0, jitter, 2)), *(SIDE + rng.normal(0, jitter, 2)))
            predictions.append(FacePrediction(Face(box, person, None), np.array([0.5, 0.5])))
        rng.shuffle(predictions)
        yield Frame(FILM, number, second, image), predictions


def identities(frames):
    """Returns the numbers that every person had, in order."""
    result = {}
    for _, predictions in tracking.track_faces(frames):
        assert len({prediction.face_id for prediction in predictions}) == len(predictions)
        for prediction in predictions:
            numbers = result.setdefault(prediction.face.confidence, [])
            if not numbers or numbers[-1] != prediction.face_id:
                numbers.append(prediction.face_id)
    return result


@pytest.mark.parametrize('rate', [25, 8])
def test_people_keep_their_numbers_while_they_move(rate):
    paths = [
        lambda second: (40 + 60 * second, 100 + 40 * math.sin(3 * second)),
        lambda second: (500 - 50 * second, 250),
        lambda second: (300 + 60 * math.cos(2 * second), 20),
    ]
    numbers = identities(film(paths, 4, rate=rate))
    assert sorted(itertools.chain(*numbers.values())) == [0, 1, 2] and len(numbers) == 3


@pytest.mark.parametrize('speed', [80, 200])
def test_people_who_cross_keep_their_numbers(speed):
    """The one behind is hidden for a while; they also turn back where they meet, in another film."""
    width = 4 * speed

    def there(second):
        return 320 - width / 2 + speed * second, 150.0

    def back(second):
        return 320 + width / 2 - speed * second, 160.0

    def bounce(second):
        return 320 - width / 2 + speed * min(second, 3.8 - second), 160.0

    assert all(len(numbers) == 1 for numbers in identities(film([there, back], 3.8)).values())
    still = [lambda second: (320.0, 150.0), there]
    assert all(len(numbers) == 1 for numbers in identities(film(still, 3.8)).values())
    assert all(len(numbers) == 1 for numbers in identities(film([lambda second: (300.0, 150.0), bounce], 3.8)).values())


def test_a_short_gap_ends_no_track_and_a_long_one_does():
    path = [lambda second: (100 + 50 * second, 100)]
    short = film(path, 4, seen=lambda _, second: not 1 < second < 2)
    assert identities(short) == {0: [0]}
    long = film(path, 6, seen=lambda _, second: not 1 < second < 4)
    assert identities(long) == {0: [0, 1]}


def test_after_a_cut_faces_are_new():
    """Also where they look alike and are in the same place; without a cut they are not."""
    before = list(film([lambda _: (200, 100)], 1))
    for scene, numbers in ((0, [0]), (5, [0, 1])):
        later = film([lambda _: (200, 100)], 1, scene=scene)
        after = [(frame._replace(seconds=frame.seconds + 1), predictions) for frame, predictions in later]
        assert identities(before + after) == {0: numbers}


def test_people_who_look_alike_are_told_apart_by_their_motion():
    """The one behind comes back where the other was before."""
    paths = [lambda second: (80 + 120 * second, 140), lambda second: (560 - 120 * second, 150)]
    assert all(len(numbers) == 1 for numbers in identities(film(paths, 4, rate=8, twins=True)).values())


def test_another_face_in_the_same_place_is_another_person():
    frames = film([lambda _: (200, 100)] * 2, 2, seen=lambda person, second: person == (second >= 1))
    assert identities(frames) == {0: [0], 1: [1]}


def test_probabilities_are_smoothed_over_time_for_each_person():
    frames = list(film([lambda _: (100, 100), lambda _: (400, 100)], 4))
    rng = np.random.default_rng(0)
    noisy = [
        (frame, [p._replace(probabilities=np.array([p.face.confidence, rng.random()])) for p in predictions])
        for frame, predictions in frames
    ]
    spread = {}
    for smoothing in (0.0, 1.0):
        values = [p for _, row in tracking.track_faces(noisy, smoothing_seconds=smoothing) for p in row]
        assert all(p.probabilities[0] == pytest.approx(p.face.confidence) for p in values)
        spread[smoothing] = np.std([p.probabilities[1] for p in values[50:]])
    assert spread[1.0] < spread[0.0] / 3


def test_photographs_have_no_tracks():
    frame = Frame(Source('x.jpg', 1, 0.0), 0, 0.0, np.zeros((8, 8, 3), np.uint8))
    prediction = FacePrediction(Face((0, 0, 4, 4), 0.9, None), np.array([1.0]))
    assert list(tracking.track_faces([(frame, [prediction])] * 2)) == [(frame, [prediction])] * 2


def test_the_frames_of_a_person_are_one_record():
    persons = tracking.Persons()
    for _, predictions in tracking.track_faces(film([lambda second: (100 + second, 100), lambda _: (400, 100)], 2)):
        seconds = _.seconds
        persons.add(predictions, seconds)
    first, second = persons.records(FILM, ('happy', 'sad'))
    assert first['file'] == 'film.mp4' and {first['face_id'], second['face_id']} == {0, 1}
    assert first['frames'] == 50 and first['first_seconds'] == 0 and first['last_seconds'] == pytest.approx(1.96)
    assert first['probabilities'] == {'happy': 0.5, 'sad': 0.5} and first['confidence'] == 0.5
