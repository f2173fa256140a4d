"""What the doctor reports: findings as positions, as JSON, and as a mask of what to leave out."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fer_jax.data.quality import findings_table, near_duplicates
from fer_jax.errors import UserError

LATER = {'validation': 1, 'test': 2}  # what is learned from comes first: every other split is 0
KINDS = ('unreadable', 'blank', 'tiny', 'duplicates', 'conflicts', 'leaks')


class Inspected(NamedTuple):
    """A set of any kind, as plain arrays.

    Attributes:
      ids: str [N].
      splits: str [N].
      labels: int [N], -1 where there is none.
      subjects: str [N], '' where unknown.
      classes: names of the labels.
      read: position -> the encoded image; called from threads. OSError and UserError make an image unreadable.
      published: split -> the official count of each class, or the total alone.
    """

    ids: np.ndarray
    splits: np.ndarray
    labels: np.ndarray
    subjects: np.ndarray
    classes: tuple[str, ...]
    read: Callable[[int], bytes]
    published: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Report:
    """The findings about a set, as positions in `data`.

    Attributes:
      unreadable, notes: position -> why, and what is unusual about the file.
      shapes: int32 [N, 3], height, width, channels after decoding; zeros where unreadable.
      constant: bool [N], one grey level or colour throughout.
      blank: bool [N], the constant ones and those whose every channel has a standard deviation below 1 grey level.
      tiny: bool [N], a side under 24 pixels.
      odd: bool [N], longer than twice the width, wider than twice the height, or of another height and width than 99 %
        of the set.
      duplicates: groups of images with the same shape and pixels, ascending positions.
      near_duplicates: groups that hold at least two different images, exact copies included; see near_duplicates.py.
      mean, std: of each channel, 0..1, every image weighing the same; of the train split, or of all if there is none.
    """

    data: Inspected
    unreadable: dict[int, str]
    notes: dict[int, tuple[str, ...]]
    shapes: np.ndarray
    constant: np.ndarray
    blank: np.ndarray
    tiny: np.ndarray
    odd: np.ndarray
    duplicates: list[np.ndarray]
    near_duplicates: list[np.ndarray]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def dropped(self, kinds: Sequence[str]) -> np.ndarray:
        """Returns the examples to leave out: bool [N], true for what any of `kinds` leaves out.

        'unreadable', 'blank', 'tiny': those images, in every split.
        'duplicates': of the exact copies within one split all but the first, whatever their labels.
        'leaks': images of which an exact copy stands in a later split (train < validation < test; splits of other names
          count as train), so that the later split stays whole and has not been seen.
        'conflicts': in splits other than validation and test, all copies of an image that stands there under two
          labels. Labels of later splits are not looked at, and validation and test are left as they are.

        Raises:
          UserError: there is no such kind.
        """
        for kind in kinds:
            if kind not in KINDS:
                raise UserError(f'--drop={kind!r} is unknown; there are {", ".join(KINDS)}')
        splits, labels = self.data.splits, self.data.labels
        drop = np.zeros(len(splits), bool)
        if 'unreadable' in kinds:
            drop[list(self.unreadable)] = True
        drop |= self.blank if 'blank' in kinds else False
        drop |= self.tiny if 'tiny' in kinds else False
        for group in self.duplicates:
            ranks = np.array([LATER.get(split, 0) for split in splits[group]])
            if 'duplicates' in kinds:
                drop[np.delete(group, np.unique(splits[group], return_index=True)[1])] = True
            if 'leaks' in kinds:
                drop[group[ranks < ranks.max()]] = True
            learned = group[ranks == 0]
            if 'conflicts' in kinds and conflicting(labels[learned]):
                drop[learned] = True
        return drop

    def to_json(self) -> dict[str, Any]:
        """Returns the findings as plain Python, the same in every run; examples as {id, split, label, ...}."""
        data = self.data
        readable = self.shapes[:, 0] > 0
        sizes = Counter(f'{height}x{width}' for height, width, _ in self.shapes[readable].tolist())
        sides = np.sort(self.shapes[readable, :2].min(1)) if readable.any() else np.zeros(1, np.int32)
        counts = {
            split: np.bincount(_labelled(data, split), minlength=len(data.classes)).tolist()
            for split in splits_in_order(data.splits)
        }
        split = 'train' if 'train' in counts else 'all'
        leaks, leaked = _leaks(data.splits, self.duplicates, np.zeros(len(data.ids), bool))
        further, _ = _leaks(data.splits, self.near_duplicates, leaked)
        return {
            'images': len(data.ids),
            'splits': {name: int((data.splits == name).sum()) for name in counts},
            'classes': list(data.classes),
            'counts': counts,
            'published': {name: list(official) for name, official in data.published.items()},
            'unlabelled': int((data.labels < 0).sum()),
            'sizes': {
                'distinct': len(sizes),
                'most_common': dict(sizes.most_common(1)),
                'shorter_side': {'least': int(sides[0]), 'median': int(sides[len(sides) // 2]), 'most': int(sides[-1])},
            },
            'grey': int((self.shapes[:, 2] == 1).sum()),
            'statistics': {'split': split, 'mean': list(self.mean), 'std': list(self.std)},
            'unreadable': [self._example(index) | {'reason': why} for index, why in self.unreadable.items()],
            'blank': [
                self._example(index) | {'constant': bool(self.constant[index])}
                for index in np.flatnonzero(self.blank).tolist()
            ],
            'tiny': [self._example(index) | self._size(index) for index in np.flatnonzero(self.tiny).tolist()],
            'odd_shaped': [self._example(index) | self._size(index) for index in np.flatnonzero(self.odd).tolist()],
            'unusual': [self._example(index) | {'notes': list(notes)} for index, notes in self.notes.items()],
            'duplicates': self._groups(self.duplicates) | {'leaks': leaks},
            'near_duplicates': self._groups(self.near_duplicates)
            | {'leaks': further, 'correlation': near_duplicates.MIN_CORRELATION},
            'subjects': {
                'known': len(np.unique(data.subjects[data.subjects != ''])),
                'in_two_splits': _shared_subjects(data),
            },
        }

    def table(self) -> str:
        """Returns the findings for the terminal, at most about 40 lines."""
        return findings_table.render(self.to_json())

    def _example(self, index: int) -> dict[str, Any]:
        label = int(self.data.labels[index])
        return {
            'id': str(self.data.ids[index]),
            'split': str(self.data.splits[index]),
            'label': self.data.classes[label] if label >= 0 else None,
        }

    def _size(self, index: int) -> dict[str, int]:
        return {'height': int(self.shapes[index, 0]), 'width': int(self.shapes[index, 1])}

    def _groups(self, groups: list[np.ndarray]) -> dict[str, Any]:
        return {
            'groups': len(groups),
            'images': sum(map(len, groups)),
            'conflicting': sum(conflicting(self.data.labels[group]) for group in groups),
            'across_splits': sum(len(set(self.data.splits[group].tolist())) > 1 for group in groups),
            'members': [[self._example(index) for index in group.tolist()] for group in groups],
        }


def conflicting(labels: np.ndarray) -> bool:
    """Tells whether there are two different labels; -1 is none."""
    return len(set(labels[labels >= 0].tolist())) > 1


def splits_in_order(splits: np.ndarray) -> list[str]:
    """Returns the names of splits: train, others by name, validation, test."""
    return sorted(set(splits.tolist()), key=lambda split: (LATER.get(split, 0), split != 'train', split))


def _labelled(data: Inspected, split: str) -> np.ndarray:
    return data.labels[(data.splits == split) & (data.labels >= 0)]


def _leaks(
    splits: np.ndarray, groups: list[np.ndarray], known: np.ndarray
) -> tuple[dict[str, dict[str, int]], np.ndarray]:
    """Split -> number of its images of which a copy stands in each earlier split, and in 'any' of them.

    Those `known` to leak are not counted. Also returns which images leak: bool [N].
    """
    leaks: dict[str, Counter[str]] = {}
    leaked = np.zeros(len(splits), bool)
    for group in groups:
        present = set(splits[group].tolist())
        for index in group[~known[group]].tolist():
            split = str(splits[index])
            earlier = [other for other in present if LATER.get(other, 0) < LATER.get(split, 0)]
            if earlier:
                leaked[index] = True
                leaks.setdefault(split, Counter()).update([*earlier, 'any'])
    return {split: dict(sorted(leaks[split].items())) for split in sorted(leaks)}, leaked


def _shared_subjects(data: Inspected) -> list[dict[str, Any]]:
    counts: dict[str, Counter[str]] = {}
    for subject, split in zip(data.subjects.tolist(), data.splits.tolist(), strict=True):
        if subject:
            counts.setdefault(subject, Counter())[split] += 1
    return [
        {'subject': subject, 'images': dict(sorted(counts[subject].items()))}
        for subject in sorted(counts)
        if len(counts[subject]) > 1
    ]
