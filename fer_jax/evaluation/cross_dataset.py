"""A run on another data set than it was trained on: classes by their meaning, without images that it has seen."""

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
    """Digests of the images on which the run was trained or selected, of all its tasks, or a run that it learnt from.

    That is the run from whose weights it started, its teachers, and in turn what they learnt from. Of one whose images
    cannot be known a line is printed.

    Raises:
      UserError: the run's own images are not where they were.
    """
    seen: set[bytes] = set()
    waiting, met = [workdir], {workdir.resolve()}
    while waiting:
        run = waiting.pop()
        for earlier in _learnt_from(run):
            if earlier.resolve() not in met:
                met.add(earlier.resolve())
                waiting.append(earlier)
        try:
            data = run_data.data_of_run(run)
        except UserError as error:
            if run == workdir:
                raise
            print(f'{workdir} learnt from {run}, whose images cannot be left out: {error}')
            continue
        for task in data.values():
            for role in {'train', 'validation'} & task.splits.keys():
                seen |= {row.tobytes() for row in task.splits[role].digests}
    return seen


def _learnt_from(workdir: Path) -> Iterator[Path]:
    """Folders of the run whose weights this one started from, and of its teachers."""
    config = run_config.read_run_config(workdir)
    others = {'scratch', *(known.weights for known in published_weights.PUBLISHED)}
    for name in (config['model']['weights'], *config.get('distil', {}).get('teachers', ())):
        folder = restore.resolve_workdir(name)
        if (folder / 'config.json').is_file():
            yield folder
        elif name not in others and not Path(name).expanduser().is_file():
            print(f'{workdir} learnt from {name!r}, which is no run here: the images that it saw cannot be left out')


def predict_unseen(predictor: Predictor, table: Table, seen: set[bytes]) -> tuple[Predictions, dict[str, int]]:
    """What it says of the images that it has not `seen` and whose classes it knows, and how many others there were.

    Raises:
      UserError: fewer than two classes in common, or nothing to score.
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
    logits = predictor.of_table(part)[:, [ours.index(name) for name in common]]
    found = Predictions(tuple(common), part.ids, number[part.labels], part.subjects, part.groups, logits)
    return found, {'trained on': int((~fresh).sum()), 'of other classes': int((fresh & ~known).sum())}


def score_unseen(predictor: Predictor, table: Table, seen: set[bytes]) -> dict[str, Any]:
    """The scores of one pair, its `classes`, and what was `left_out`; see `predict_unseen`."""
    found, left_out = predict_unseen(predictor, table, seen)
    return comparison.scores(found) | {'classes': list(found.classes), 'left_out': left_out}
