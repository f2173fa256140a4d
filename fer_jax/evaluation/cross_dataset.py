"""A run on another data set than it was trained on: classes by their meaning, without images that it has seen."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.data.tables.expressions import canonical
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError
from fer_jax.evaluation import comparison
from fer_jax.evaluation.comparison import Predictions
from fer_jax.inference.predictor import Predictor
from fer_jax.pretrained import published_weights
from fer_jax.runs import config as run_config
from fer_jax.runs import data as run_data
from fer_jax.runs import restore


def trained_on(workdir: Path) -> set[bytes]:
    """Returns the digests of `seen_images`, and prints a line for each network whose images are unknown."""
    seen, unknown = seen_images(workdir)
    for line in unknown:
        print(line)
    return seen


def seen_images(workdir: Path) -> tuple[set[bytes], list[str]]:
    """Finds the images on which a run was trained or selected, directly or through the runs that it learnt from.

    These are the images of all its tasks, and those of the run from whose weights it started, of its teachers, and of
    the runs that those learnt from in turn.

    Args:
      workdir: folder of the run.

    Returns:
      The digests of the images, and a line of text for each network whose images are unknown.
    """
    seen: set[bytes] = set()
    unknown: list[str] = []
    waiting, met = [workdir], {workdir.resolve()}
    while waiting:
        run = waiting.pop()
        for earlier in _learnt_from(run, unknown):
            if earlier.resolve() not in met:
                met.add(earlier.resolve())
                waiting.append(earlier)
        try:
            digests = run_data.image_digests(run)
        except UserError as error:
            whose = 'its training images' if run == workdir else f'it learnt from {run}, whose images'
            unknown.append(f'{workdir}: {whose} cannot be left out: {error}')
            continue
        for role in ('train', 'validation'):
            seen |= {row.tobytes() for row in digests[role]}
    return seen, unknown


def _learnt_from(workdir: Path, unknown: list[str]) -> Iterator[Path]:
    """Yields the folders of the run whose weights this one started from, and of its teachers."""
    config = run_config.read_run_config(workdir)
    others = {'scratch', *(known.weights for known in published_weights.PUBLISHED)}
    for name in (config['model']['weights'], *config.get('distil', {}).get('teachers', ())):
        folder = restore.resolve_workdir(name)
        if (folder / 'config.json').is_file():
            yield folder
        elif name not in others and not os.path.isfile(os.path.expanduser(name)):
            unknown.append(
                f'{workdir}: it learnt from {name!r}, which is no run here: the images that it saw cannot be left out'
            )


def predict_unseen(predictor: Predictor, table: Table, seen: set[bytes]) -> tuple[Predictions, dict[str, int]]:
    """Classifies the images of a table that the run has not seen and whose class it knows.

    Args:
      predictor: the run's network.
      table: labelled images.
      seen: digests of images to leave out, see `seen_images`.

    Returns:
      The predictions, restricted to the common classes, and the number of images left out by reason: 'trained on', 'of
      other classes' and 'unreadable'.

    Raises:
      UserError: there are fewer than two common classes, or no image is left to score.
    """
    ours, theirs = ([canonical(name) for name in names] for names in (predictor.classes, table.classes))
    common = [name for name in ours if name in theirs]
    if len(common) < 2:
        raise UserError(
            f'{table.name} has the classes {", ".join(table.classes)}, the run {", ".join(predictor.classes)}; fewer '
            'than two are the same'
        )
    fresh = np.array([row.tobytes() not in seen for row in table.digests])
    number = np.array([common.index(name) if name in common else -1 for name in theirs])
    known = number[table.labels] >= 0
    part = table.take(np.flatnonzero(fresh & known))
    if not len(part):
        raise UserError(f'{table.name}: the run was trained or selected on every one of its {len(table)} images')
    index, logits, unreadable = predictor.predict_table(part)
    part, logits = part.take(index), logits[:, [ours.index(name) for name in common]]
    predictions = Predictions(tuple(common), part.ids, number[part.labels], part.subjects, part.groups, logits)
    left_out = {'trained on': int((~fresh).sum()), 'of other classes': int((fresh & ~known).sum())}
    return predictions, left_out | {'unreadable': len(unreadable)}


def score_unseen(predictor: Predictor, table: Table, seen: set[bytes]) -> dict[str, Any]:
    """Scores a run on the images of a table that it has not seen.

    Args:
      predictor, table, seen: see `predict_unseen`.

    Returns:
      The scores of `comparison.scores`, with the common `classes` and the numbers of images `left_out`.

    Raises:
      UserError: see `predict_unseen`.
    """
    predictions, left_out = predict_unseen(predictor, table, seen)
    return comparison.scores(predictions) | {'classes': list(predictions.classes), 'left_out': left_out}
