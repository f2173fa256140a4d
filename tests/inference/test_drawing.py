"""Annotated copies: numbers, and labels that can be read."""

import itertools

import numpy as np

from fer_jax.inference import drawing


def record(number, box, *, abstained=False, **more):
    probabilities = {'happy': 0.9, 'sad': 0.1}
    fields = {'face': number, 'box': box, 'label': 'happy', 'confidence': 0.9, 'abstained': abstained}
    return fields | {'probabilities': probabilities} | more


def share(first, second):
    return drawing._shared_area(first, second)


def test_a_label_has_the_number_of_its_record():
    assert drawing.label_text(record(0, [0, 0, 1, 1])) == '0 happy 90%'
    assert drawing.label_text(record(2, [0, 0, 1, 1], face_id=7)) == '7 happy 90%'
    assert drawing.label_text(record(3, [0, 0, 1, 1], abstained=True)) == '3 ?'


def test_labels_of_near_faces_do_not_overlap():
    """Rows of faces as near as in a group photograph, stacks, and boxes at the edges and beyond them."""
    rows = [(40.0 * column, 60.0 * row, 40.0 * column + 38, 60.0 * row + 50) for row in range(3) for column in range(6)]
    crowded = [(100.0 + 4 * step, 100.0 + 3 * step, 150.0 + 4 * step, 160.0 + 3 * step) for step in range(6)]
    edges = [(-20.0, -20, 30, 30), (-10.0, 0, 30, 40), (470.0, 340, 500, 370), (460.0, 330, 490, 365)]
    for boxes in (rows, crowded, edges):
        placed = []
        for box in boxes:
            others = [other for other in boxes if other != box]
            placed.append(drawing.place_label(box, (90.0, 14.0), (480, 360), placed, others))
        for left, top, right, bottom in placed:
            assert left >= 0 and top >= 0 and right <= 480 and bottom <= 360
        assert max(share(*pair) for pair in itertools.combinations(placed, 2)) == 0


def test_a_lone_label_is_above_its_box_or_below_at_the_upper_edge():
    assert drawing.place_label((50, 50, 90, 90), (30, 10), (200, 200), [], []) == (50, 40, 80, 50)
    assert drawing.place_label((50, 2, 90, 90), (30, 10), (200, 200), [(40, 0, 60, 12)], []) == (50, 90, 80, 100)
    assert drawing.place_label((0, 0, 9, 9), (30, 10), (20, 8), [], [])[:2] == (0, 0)  # larger than the picture


def test_every_label_is_drawn_whole():
    """In the colour of its class: as much of it as of labels far apart."""
    image = np.zeros((360, 640, 3), np.uint8)

    def coloured(boxes):
        colour = np.array([int(drawing.COLOURS[0][place : place + 2], 16) for place in (1, 3, 5)])
        records = [record(number, box) for number, box in enumerate(boxes)]
        return (drawing.draw_faces(image, records) == colour).all(-1).sum()

    near = coloured([[200, 100, 60, 60], [225, 100, 60, 60], [250, 100, 60, 60]])
    far = coloured([[50, 100, 60, 60], [250, 100, 60, 60], [450, 100, 60, 60]])
    assert near > 0.9 * far
