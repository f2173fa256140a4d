"""A source of labelled images as it is found, before its examples are given roles."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

UNSPLIT = 'unsplit'  # what TFDS calls a split 'all', a word that it keeps to itself


@dataclass(frozen=True)
class Table:
    """The columns of a table of N examples.

    Attributes:
      classes: in the order of the labels.
      ids: str [N], unique; the same wherever the images lie.
      splits: str [N], the source's own, or 'all'.
      labels: int32 [N], -1 where there is none.
      digests: uint8 [N, 32], sha256 of the encoded images.
      fetch: int [B] positions -> encoded images; a pure function, safe in threads.
      shape: (H, W, C) of every image, None where it varies.
      subjects, groups: str [N], '' where unknown.
      weights: float32 [N], of each example in the loss.
      subsets: name -> bool [N], parts of a split that are scored apart.
      targets: name -> float32 [N, K]; `columns` names the K.
      published: split -> official counts of its classes, or of the split.
      notes: lines that a user should know.
      left_out: reason -> files that lie at the source and are not read.
    """

    name: str
    classes: tuple[str, ...]
    ids: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    digests: np.ndarray
    fetch: Callable[[np.ndarray], list[bytes]]
    shape: tuple[int | None, int | None, int] = (None, None, 3)
    subjects: np.ndarray = field(default_factory=lambda: np.empty(0, np.str_))
    groups: np.ndarray = field(default_factory=lambda: np.empty(0, np.str_))
    weights: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    subsets: Mapping[str, np.ndarray] = field(default_factory=dict)
    targets: Mapping[str, np.ndarray] = field(default_factory=dict)
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    published: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: Mapping[str, Collection[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, empty in (('subjects', ''), ('groups', ''), ('weights', np.float32(1))):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.full(len(self.ids), empty))

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, positions: np.ndarray, **changes: Any) -> 'Table':
        """Returns the examples at `positions`, int [M], in that order."""
        fetch = self.fetch
        columns = ('ids', 'splits', 'labels', 'digests', 'subjects', 'groups', 'weights')
        cut: dict[str, Any] = {name: getattr(self, name)[positions] for name in columns}
        for name in ('subsets', 'targets'):
            cut[name] = {key: rows[positions] for key, rows in getattr(self, name).items()}
        return dataclasses.replace(self, **(cut | {'fetch': lambda index: fetch(positions[index])} | changes))
