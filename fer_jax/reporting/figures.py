"""Tables and pictures of a run."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fer_jax.utils.fonts import showable
from fer_jax.utils.plotting import GRID, INK, SELECTED, TRAIN, VALIDATION, figure

LEGEND_COLUMNS = 3
MOST_WRITTEN_CLASSES, MOST_NAMED_CLASSES, LARGE_MATRIX_INCHES = 40, 100, 14


def write_figures(workdir: Path, results: dict[str, Any], history: list[dict[str, Any]]) -> None:
    """Writes curves.png, and confusion_<split>.png or attributes_<split>.png for each scored split.

    Args:
      workdir: folder to write to.
      results: results in the form of results.json.
      history: records of metrics.jsonl.
    """
    curves_png(workdir / 'curves.png', history, results['selected_on'].split('/')[0], results['step'])
    confusions(workdir, results)


def confusions(workdir: Path, results: dict[str, Any]) -> None:
    """Writes confusion_<split>.png, or attributes_<split>.png for attributes, for each scored split.

    Args:
      workdir: folder to write to.
      results: results in the form of results.json.
    """
    for split, scores in results['splits'].items():
        if 'accuracy' not in scores:
            continue
        title, name = f'{split}: {scores["accuracy"]:.1%} of {scores["n"]:,}', split.replace('/', '_')
        if 'per_attribute' in scores:
            attributes_png(workdir / f'attributes_{name}.png', scores['per_attribute'], title)
        elif 'confusion' in scores:
            classes = list(scores['per_class'])
            confusion_png(workdir / f'confusion_{name}.png', np.array(scores['confusion']), classes, title)


def confusion_png(path: Path, matrix: np.ndarray, classes: Sequence[str], title: str) -> None:
    """Writes a figure of a confusion matrix as PNG.

    Each cell shows its share of the row in percent and its count, and is coloured by the share. The shares on the
    diagonal, in bold, are the recalls. Of more than `MOST_WRITTEN_CLASSES` classes cells have the colour alone, and at
    most `MOST_NAMED_CLASSES` are named, evenly spaced.

    Args:
      path: file to write.
      matrix: int [C, C], with labels in rows and predictions in columns.
      classes: class names.
      title: title of the figure.
    """
    count = len(classes)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    names = [textwrap.fill(showable(name), 14) for name in classes]
    written = count <= MOST_WRITTEN_CLASSES
    side = max(4.5, 0.85 * count + 1.4) if written else LARGE_MATRIX_INCHES
    drawn = figure(side + 0.6, side + 0.2)
    axes = drawn.add_subplot()
    axes.imshow(shares, cmap='Blues', vmin=0, vmax=1)
    for row in range(count if written else 0):
        for column in range(count):
            axes.text(
                column,
                row,
                f'{shares[row, column]:.0%}\n{matrix[row, column]:,}',
                ha='center',
                va='center',
                fontsize=8.5,
                fontweight='bold' if row == column else 'normal',
                color='white' if shares[row, column] > 0.55 else INK,
            )
    named = range(0, count, -(-count // MOST_NAMED_CLASSES))
    slanted = {'rotation': 40, 'ha': 'right', 'rotation_mode': 'anchor'}
    axes.set_xticks(named, [names[index] for index in named], **slanted, fontsize=None if written else 6)
    separator = '\n' if written else ' '
    totals = [f'{names[index]}{separator}{matrix[index].sum():,}' for index in named]
    axes.set_yticks(named, totals, fontsize=None if written else 6)
    axes.set_xlabel('predicted')
    axes.set_ylabel('label, number of examples')
    axes.set_title(title, loc='left')
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    if written:
        axes.set_xticks(np.arange(count - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(count - 1) + 0.5, minor=True)
        axes.grid(which='minor', color='white', linewidth=1.5)
    axes.tick_params(which='minor', length=0)
    drawn.savefig(path)


def attributes_png(path: Path, per_attribute: dict[str, dict[str, Any]], title: str) -> None:
    """Writes a figure of the accuracy of each attribute as PNG.

    It shows the 95 % interval, and the accuracy of always predicting the more frequent value.

    Args:
      path: file to write.
      per_attribute: `per_attribute` of `evaluation.score_logits.score_attributes`.
      title: title of the figure.
    """
    names, each = list(map(showable, per_attribute)), list(per_attribute.values())
    accuracy = np.array([scores['accuracy'] for scores in each])
    interval = np.array([scores['accuracy_ci95'] or [scores['accuracy']] * 2 for scores in each])
    constant = np.array([max(scores['present'], scores['n'] - scores['present']) / scores['n'] for scores in each])
    drawn = figure(6.5, 1.4 + 0.28 * len(names))
    axes = drawn.subplots()
    rows = np.arange(len(names))
    whiskers = np.abs(interval - accuracy[:, None]).T
    axes.errorbar(accuracy, rows, xerr=whiskers, fmt='o', color=VALIDATION, markersize=5, label='accuracy')
    axes.plot(
        constant,
        rows,
        linestyle='',
        marker='|',
        markersize=11,
        color=SELECTED,
        zorder=3,
        label='the more frequent answer',
    )
    axes.set_yticks(rows, [f'{name} ({scores["present"]:,})' for name, scores in zip(names, each, strict=True)])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f'{value:.0%}')
    axes.grid(axis='x', color=GRID)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)
    axes.set_title(title, loc='left')
    drawn.legend(frameon=False, loc='outside lower center', ncols=2)
    drawn.savefig(path)


def curves_png(path: Path, history: list[dict[str, Any]], role: str, selected: int) -> None:
    """Writes a figure of loss and accuracy over epochs as PNG, for training and for the selecting split.

    Vertical lines separate several phases, and a ring marks the selected step. The training loss is the minimised one,
    with label smoothing and class weights; that of the selecting split is the NLL.

    Args:
      path: file to write.
      history: records of metrics.jsonl.
      role: name of the selecting split.
      selected: the selected step.
    """
    from matplotlib.ticker import PercentFormatter

    drawn = figure(10, 4.5)
    left, right = drawn.subplots(1, 2)
    right.yaxis.set_major_formatter(PercentFormatter(1))
    panels = ((left, 'loss', 'nll', f'loss (train) and NLL ({role})'), (right, 'accuracy', 'accuracy', 'accuracy'))
    chosen = [entry for entry in history if entry['split'] == role and entry['step'] == selected]
    for axes, ours, theirs, label in panels:
        for split, name, colour, mark in (('train', ours, TRAIN, ''), (role, theirs, VALIDATION, 'o')):
            points = [(entry['epoch'], entry[name]) for entry in history if entry['split'] == split and name in entry]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, marker=mark, markersize=4, label=split)
        starts = _phase_starts(history)
        for index, start in starts.items():
            if len(starts) > 1:
                axes.axvline(start, color=TRAIN, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
                axes.annotate(
                    f'phase {index}', (start, 1), (2, 3), xycoords=axes.get_xaxis_transform(),
                    textcoords='offset points', va='bottom', fontsize=8, color=INK,
                )  # fmt: skip
        for entry in chosen:
            axes.plot(
                entry['epoch'], entry[theirs], color=SELECTED, marker='o', markersize=10, markerfacecolor='none',
                markeredgewidth=2, linestyle='', zorder=3, label=f'selected: {entry["accuracy"]:.1%}',
            )  # fmt: skip
        axes.set_xlabel('epoch')
        axes.set_title(label, loc='left', pad=20)
        axes.grid(axis='y', color=GRID)
        axes.spines[['top', 'right']].set_visible(False)
    handles = dict(zip(*right.get_legend_handles_labels()[::-1], strict=True))
    if handles:
        drawn.legend(handles.values(), handles.keys(), frameon=False, loc='outside lower center', ncols=len(handles))
    drawn.savefig(path)


def comparison_curves_png(file: Path | BinaryIO, runs: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Writes a figure of the accuracy on the selecting split over epochs as PNG, with one line per run.

    Args:
      file: file to write.
      runs: points (epoch, accuracy) by the name of the run.
    """
    from matplotlib.ticker import PercentFormatter

    drawn = figure(10, 3.6 + 0.22 * -(-len(runs) // LEGEND_COLUMNS))
    axes = drawn.add_subplot()
    for index, (name, points) in enumerate(runs.items()):
        style = ('-', '--', ':')[index // 10 % 3]
        look = {'color': f'C{index % 10}', 'linestyle': style, 'marker': 'o', 'markersize': 3}
        axes.plot(*zip(*points, strict=True), **look, label=showable(name))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel('epoch')
    axes.set_title('accuracy of the split that selects', loc='left')
    axes.grid(axis='y', color=GRID)
    axes.spines[['top', 'right']].set_visible(False)
    drawn.legend(frameon=False, loc='outside lower center', ncols=min(len(runs), LEGEND_COLUMNS), fontsize=9)
    drawn.savefig(file, format='png')


def _phase_starts(history: list[dict[str, Any]]) -> dict[int, float]:
    """Phase -> the epoch at which the one before it ended."""
    ends: dict[int, float] = {}
    for entry in history:
        ends[entry['phase']] = max(ends.get(entry['phase'], 0.0), entry['epoch'])
    return {index: ends.get(index - 1, 0.0) for index in sorted(ends)}
