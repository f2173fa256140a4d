"""One split of a data set: labels in memory, images by index."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Split:
    """Holds one split: its labels in memory, and a function that reads its images by index.

    Attributes:
      ids: str [N], unique in the set.
      digests: uint8 [N, 32], sha256 of the encoded images.
      labels: int32 [N], what predictions are scored against where there are no attributes; -1 where there is none.
      attributes: float32 [N, classes] of 0, 1 or NaN where unknown, trained on and scored in place of labels, or None.
      levels: float32 [N, classes] of numbers, NaN where unknown, trained on and scored in place of labels, or None.
      shape: (H, W, C) of every image.
      read: int [B] indices -> uint8 [B, H, W, C]; a pure function, safe in threads.
      weights: float32 [N], of each example in the loss.
      distributions: float32 [N, classes] to train on in place of labels, or None.
      subjects, groups: str [N], '' where unknown.
      subsets: name -> bool [N], parts that are scored apart.
      targets: name -> float32 [N, K], further annotations.
      teacher_outputs: name -> float32 [N, K], see `fer_jax.training.distillation`.
      readers: with how many threads `read` is fastest.
    """

    ids: np.ndarray
    digests: np.ndarray
    labels: np.ndarray
    attributes: np.ndarray | None
    levels: np.ndarray | None
    shape: tuple[int, int, int]
    read: Callable[[np.ndarray], np.ndarray]
    weights: np.ndarray
    distributions: np.ndarray | None
    subjects: np.ndarray
    groups: np.ndarray
    subsets: Mapping[str, np.ndarray]
    targets: Mapping[str, np.ndarray]
    teacher_outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    readers: int = 1

    @property
    def truth(self) -> np.ndarray:
        """Returns the targets of scoring: int32 [N] labels, or float32 [N, classes] of levels or attributes."""
        if self.levels is not None:
            return self.levels
        return self.labels if self.attributes is None else self.attributes

    @property
    def learned(self) -> np.ndarray:
        """Returns the targets of training: `truth`, or float32 [N, classes] distributions."""
        return self.truth if self.distributions is None else self.distributions

    @property
    def kind(self) -> str:
        """Returns the kind of float labels: 'levels', 'attributes' or 'shares', see `label_text.describe_label`."""
        return 'levels' if self.levels is not None else 'shares' if self.attributes is None else 'attributes'

    def take(self, positions: np.ndarray) -> 'Split':
        """Returns the examples at `positions`, int [M], in that order."""
        cut: dict[str, Any] = {'read': lambda index: self.read(positions[index])}
        for name in ('ids', 'digests', 'labels', 'weights', 'subjects', 'groups'):
            cut[name] = getattr(self, name)[positions]
        for name in ('attributes', 'levels', 'distributions'):
            rows = getattr(self, name)
            cut[name] = None if rows is None else rows[positions]
        for name in ('subsets', 'targets', 'teacher_outputs'):
            cut[name] = {key: rows[positions] for key, rows in getattr(self, name).items()}
        cut['subsets'] = {key: rows for key, rows in cut['subsets'].items() if rows.any()}
        return dataclasses.replace(self, **cut)
