"""The pictures, by their pixels; that a whole run writes them is in test_score_logits.py."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from fer_jax.reporting import figures
from fer_jax.utils import plotting

SHORT = ('angry', 'disgust', 'fear', 'happy', 'sad', 'surprise', 'neutral')
LONG = (*SHORT, 'happiness (Duchenne)', 'unmistakably positive surprise')


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert('RGB')).astype(int)


def with_margin(picture):
    """Nothing is cut off: the outermost four pixels are blank."""
    return all((edge == 255).all() for edge in (picture[:4], picture[-4:], picture[:, :4], picture[:, -4:]))


@pytest.mark.parametrize('classes', [SHORT, LONG, ('no', 'yes')])
def test_no_name_is_cut_off_the_confusion(tmp_path, classes):
    matrix = np.random.default_rng(0).integers(0, 9000, (len(classes),) * 2)
    matrix[1] = 0  # a class without examples
    figures.confusion_png(tmp_path / 'a.png', matrix, classes, 'test: 71.4% of 3,589')
    assert with_margin(pixels(tmp_path / 'a.png'))


def test_the_confusion_is_coloured_by_the_share_of_the_row(tmp_path):
    """A rare class that is always right is as dark as a common one; the wrong half of it would be white."""
    figures.confusion_png(tmp_path / 'a.png', np.diag([5000, 3, 40]), ('a', 'b', 'c'), '')
    picture = pixels(tmp_path / 'a.png')
    dark = (np.abs(picture - (8, 48, 107)).max(-1) <= 2).sum()  # the end of ColorBrewer's Blues
    figures.confusion_png(tmp_path / 'b.png', np.array([[5000, 0, 0], [3, 0, 0], [40, 0, 0]]), ('a', 'b', 'c'), '')
    other = np.abs(pixels(tmp_path / 'b.png') - (8, 48, 107)).max(-1) <= 2
    assert dark == pytest.approx(other.sum(), rel=0.05)
    columns = [np.flatnonzero(mask.any(0)) for mask in ((np.abs(picture - (8, 48, 107)).max(-1) <= 2), other)]
    assert np.ptp(columns[0]) > 2.5 * np.ptp(columns[1])  # a diagonal, and one column


def history(phases=2):
    entries = []
    for step in range(1, 13):
        shared = {'step': step, 'epoch': step / 3, 'phase': min(step // 7, phases - 1)}
        entries.append({**shared, 'split': 'train', 'loss': 2 / step, 'accuracy': 0.3 + step / 30})
        if step % 3 == 0:
            entries.append({**shared, 'split': 'validation', 'nll': 2.2 / step, 'accuracy': 0.3 + step / 40})
    return entries


def ring(path):
    """Mean column of the pixels in the colour of the selected step, in the right-hand panel without its legend."""
    picture = pixels(path)
    right = picture[: int(0.7 * len(picture)), picture.shape[1] // 2 :]
    wanted = np.abs(right - np.round(255 * np.array(to_rgb(plotting.SELECTED)))).max(-1) <= 2
    return np.argwhere(wanted)[:, 1].mean()


def test_the_ring_is_at_the_selected_step_and_not_at_the_most_accurate(tmp_path):
    places = []
    for step in (6, 9, 12):
        figures.curves_png(tmp_path / f'{step}.png', history(), 'validation', step)
        assert with_margin(pixels(tmp_path / f'{step}.png'))
        places.append(ring(tmp_path / f'{step}.png'))
    assert places[1] - places[0] > 50
    assert places[2] - places[1] == pytest.approx(places[1] - places[0], abs=2)  # equally many epochs apart


@pytest.mark.parametrize('entries', [[], history()[:2], history(phases=1)])
def test_runs_with_little_to_draw_are_drawn(tmp_path, entries):
    figures.curves_png(tmp_path / 'a.png', entries, 'validation', 12)
    assert with_margin(pixels(tmp_path / 'a.png'))


def test_the_same_run_gives_the_same_file(tmp_path):
    for name in ('a.png', 'b.png'):
        figures.curves_png(tmp_path / name, history(), 'validation', 9)
    assert (tmp_path / 'a.png').read_bytes() == (tmp_path / 'b.png').read_bytes()


def test_the_legend_does_not_cover_the_curves(tmp_path):
    """Curves that end at the lower right, where the legend stood: all their dots are seen below the last gridline."""
    entries = [entry | {'accuracy': 1 - entry['epoch'] / 4} for entry in history()]
    from matplotlib.figure import Figure

    drawn = []
    original = Figure.savefig
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Figure, 'savefig', lambda self, *args, **options: drawn.append(self) or original(self, *args, **options)
        )
        figures.curves_png(tmp_path / 'a.png', entries, 'validation', 9)
        figures.comparison_curves_png(tmp_path / 'b.png', {f'run {n}': [(0, 0.1), (4, n / 12)] for n in range(12)})
    for figure in drawn:
        legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
        assert len(legends) == 1
        box = legends[0].get_window_extent()
        assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes)
    assert with_margin(pixels(tmp_path / 'a.png')) and with_margin(pixels(tmp_path / 'b.png'))
