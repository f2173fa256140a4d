"""From the votes of several annotators to what is trained on (Barsoum et al. 2016, section 3).

The paper and its code name four modes: majority, probability, cross-entropy and multi-target. Majority is the plain
label here; probability and cross-entropy share one distribution and differ in the loss.
"""

import numpy as np

from fer_jax.config.choices import TARGETS
from fer_jax.data.tables.table import Table
from fer_jax.errors import UserError

NO_EXPRESSION = ('unknown', 'not_a_face')  # columns that FER+ votes may have behind the classes


def distributions(table: Table, mode: str) -> tuple[np.ndarray | None, np.ndarray]:
    """Returns what to train on.

    Args:
      mode: one of `TARGETS`.

    Returns:
      float32 [N, classes] or None where labels are trained on, and bool [N]: the examples that can be used.

    Raises:
      UserError: the mode is unknown, or the set has no votes.
    """
    if mode not in TARGETS:
        raise UserError(f'data.target={mode!r} is unknown; choose {", ".join(TARGETS)}')
    if mode == 'label':
        return None, table.labels >= 0
    if 'votes' not in table.targets or not set(table.classes) <= set(table.columns['votes']):
        raise UserError(f"data.target={mode!r} needs votes, {table.name} has labels; set data.target='label'")
    columns, votes = table.columns['votes'], without_outliers(table.targets['votes'])
    chosen = most_votes(votes, columns) if mode in ('probability', 'cross_entropy') else shared_votes(votes)
    places = [columns.index(name) for name in table.classes]
    usable = np.isin(chosen.argmax(1), places) & chosen.any(1)
    part = chosen[:, places]
    usable &= part.any(1)
    return (part / np.maximum(part.sum(1, keepdims=True), 1)).astype(np.float32), usable


def annotated(table: Table, annotation: str, target: str) -> np.ndarray:
    """Returns an annotation of the set: float32 [N, K], NaN where it is unknown.

    Raises:
      UserError: the set has no such annotation, or `target` asks for something else to train on.
    """
    if annotation not in table.targets:
        there = ', '.join(table.targets) or 'none'
        raise UserError(f'data.annotation={annotation!r} is no annotation of {table.name}; it has {there}')
    if target != 'label':
        raise UserError(f"data.annotation={annotation!r} with data.target={target!r}; set data.target='label'")
    return table.targets[annotation].astype(np.float32)


def attributes(values: np.ndarray) -> np.ndarray:
    """Returns float32 [N, K]: 1 where a value [N, K] is above 0, else 0; NaN where it is unknown."""
    return np.where(np.isnan(values), np.nan, values > 0).astype(np.float32)


def without_outliers(votes: np.ndarray) -> np.ndarray:
    """Removes single votes from counts of votes; shares stay as they are.

    Args:
      votes: [N, K].
    """
    counts = (votes == np.round(votes)).all(1, keepdims=True) & (votes.sum(1, keepdims=True) > 1)
    return np.where(counts & (votes <= 1), 0, votes)


def majority(votes: np.ndarray, classes: int) -> np.ndarray:
    """Returns the class that has more than half of the votes left by `without_outliers`.

    Args:
      votes: [N, K]; the first `classes` columns are the classes.

    Returns:
      int32 [N]; -1 where no class has such a majority.
    """
    kept = without_outliers(votes)
    best = kept.argmax(1)
    most = kept[np.arange(len(kept)), best]
    return np.where((most > 0.5 * kept.sum(1)) & (best < classes), best, -1).astype(np.int32)


def most_votes(votes: np.ndarray, columns: tuple[str, ...]) -> np.ndarray:
    """Keeps the largest votes of each row until they make up three quarters of all, at most three columns.

    Columns with equal votes enter together. A vote for no expression ends the search, and counts only where it leads.

    Args:
      votes: [N, K].
      columns: names of the K columns.

    Returns:
      float [N, K]; zeros in rows where more than three columns enter, or at most half of all votes are kept.
    """
    chosen = np.zeros_like(votes)
    for row, out in zip(votes.astype(np.float64), chosen, strict=True):
        total, taken, count, left = row.sum(), 0.0, 0, row.copy()
        open_ = total > 0
        while open_ and taken < 0.75 * total and count < 3 and left.any():
            best = left.max()
            for index in np.flatnonzero(left == best):
                out[index], left[index] = best, 0
                taken += best
                count += 1
                if columns[index] in NO_EXPRESSION:
                    open_ = False
                    if out.sum() > best:
                        out[index], count = 0, count - 1
                    break
        if out.sum() <= 0.5 * total or count > 3:
            out[:] = 0
    return chosen


def shared_votes(votes: np.ndarray) -> np.ndarray:
    """Keeps the votes of every column with at least 30 % of its row.

    Args:
      votes: [N, K].

    Returns:
      float [N, K]; zeros in rows where what is kept is not more than half of all votes.
    """
    total = votes.sum(1, keepdims=True)
    chosen = np.where((votes >= 0.3 * total) & (votes > 0), votes, 0)
    return np.where(chosen.sum(1, keepdims=True) > 0.5 * total, chosen, 0)
