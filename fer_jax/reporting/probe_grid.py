"""The grid of a probe, in words and as a picture."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.evaluation import summary as evaluation_summary
from fer_jax.utils import plotting

SETTINGS = ('strength', 'learning_rate', 'weight_decay', 'seed')


def named(what: Mapping[str, Any]) -> str:
    """Returns the name of a head as text, such as 'softmax, learning rate 0.001, weight decay 0.1, seed 0'.

    Args:
      what: one entry of `grid` in results.json of a probe.
    """
    shown = [f'{key.replace("_", " ")} {value:g}' for key, value in what.items() if key in SETTINGS]
    return ', '.join([what['kind'], *shown])


def summary(results: Mapping[str, Any]) -> str:
    """Returns a text summary of a probe: the best five heads, and the scores of the selected one.

    Args:
      results: results.json of a probe.
    """
    metric = results['selected_on'].split('/')[1]
    ranked = sorted(results['grid'], key=lambda head: -head[metric])
    seconds = results['seconds']
    lines = [
        f'{len(results["grid"])} heads on {results["features"]:,} features: {seconds["features"]} s for the features, '
        f'{seconds["heads"]} s for the heads; the best on {results["selected_on"]}:'
    ]
    lines += [f'  {head[metric]:.4f}  {named(head)}' for head in ranked[:5]]
    for name, scores in results['splits'].items():
        lines.append(
            f'{name:<16} n {scores["n"]:>6,}  {evaluation_summary.share(scores["accuracy"], scores["accuracy_ci95"])}'
        )
    return '\n'.join(lines)


def grid_png(path: Path, results: Mapping[str, Any]) -> None:
    """Writes a heat map of the heads' scores as PNG.

    It shows the mean over seeds of the trained heads, and the ridge heads beside it; the selected head is framed.

    Args:
      path: file to write.
      results: results.json of a probe.
    """
    metric = results['selected_on'].split('/')[1]
    softmax = [head for head in results['grid'] if head['kind'] == 'softmax']
    rates, decays = (sorted({head[name] for head in softmax}) for name in ('learning_rate', 'weight_decay'))
    table = np.array(
        [
            [
                np.mean(
                    [head[metric] for head in softmax if (head['learning_rate'], head['weight_decay']) == (rate, decay)]
                )
                for rate in rates
            ]
            for decay in decays
        ]
    )
    ridges = [head for head in results['grid'] if head['kind'] == 'ridge']
    values = [*table.ravel(), *(head[metric] for head in ridges)]
    scale = {'vmin': min(values), 'vmax': max(values), 'cmap': 'Blues', 'aspect': 'auto'}
    figure = plotting.figure(2 + len(rates) + 1.6 * bool(ridges), 1.6 + 0.6 * max(len(decays), len(ridges)))
    shares = [len(rates), 1] if ridges else [1]
    axes = figure.subplots(1, len(shares), width_ratios=shares, squeeze=False)[0]
    pick = results['pick']
    draw = functools.partial(_map, scale=scale)
    place = (decays.index(pick['weight_decay']), rates.index(pick['learning_rate'])) if pick in softmax else None
    draw(axes[0], table, [f'{rate:g}' for rate in rates], [f'{decay:g}' for decay in decays], place)
    axes[0].set(
        xlabel='learning rate', ylabel='weight decay', title=f'{results["selected_on"]}, {len(softmax)} trained heads'
    )
    if ridges:
        place = (ridges.index(pick), 0) if pick in ridges else None
        column = np.array([[head[metric]] for head in ridges])
        draw(axes[1], column, [''], [f'{head["strength"]:g}' for head in ridges], place)
        axes[1].set(title='ridge', ylabel='strength')
    figure.savefig(path)


def _map(
    axes: Any, table: np.ndarray, columns: list[str], rows: list[str], pick: tuple[int, int] | None, *, scale: Any
) -> None:
    axes.imshow(table, **scale)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    middle = (scale['vmin'] + scale['vmax']) / 2
    for (row, column), value in np.ndenumerate(table):
        colour = 'white' if value > middle else plotting.INK
        axes.text(column, row, f'{value:.3f}', ha='center', va='center', color=colour, fontsize=9)
    if pick is not None:
        from matplotlib.patches import Rectangle

        corner = (pick[1] - 0.5, pick[0] - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=plotting.SELECTED, linewidth=2.5))
