"""Which examples make up a step: a function of (seed, step) alone, so nothing about it is saved."""

import functools
from collections.abc import Callable

import numpy as np

Order = Callable[[int], np.ndarray]  # step, from 0 -> int64 [batch_size]


def make(scheme: str, labels: np.ndarray, *, seed: int, batch_size: int) -> Order:
    """Makes the order of a split: 'none' takes every example once an epoch, 'classes' every class equally often."""
    if scheme == 'none':
        return functools.partial(indices, seed, batch_size=batch_size, n=len(labels))
    members = tuple(np.flatnonzero(labels == label) for label in np.unique(labels))
    return functools.partial(balanced_indices, seed, batch_size=batch_size, members=members)


def permutation(seed: int, epoch: int, n: int, stream: int = 0) -> np.ndarray:
    """Returns the order of epoch `epoch`: int64 [n], by a counter-based generator keyed with (seed, epoch, stream)."""
    key = np.array([seed, epoch + (stream << 40)], np.uint64)
    return np.random.Generator(np.random.Philox(key=key)).permutation(n)


def indices(seed: int, step: int, batch_size: int, n: int) -> np.ndarray:
    """Returns the examples of step `step`, counted from 0.

    The epochs' permutations of `n` examples are laid end to end and cut into batches: a batch may straddle epochs, and
    every example comes once an epoch.

    Returns:
      int64 [batch_size].
    """
    return _cycled(seed, np.arange(step * batch_size, (step + 1) * batch_size), n, stream=0)


def balanced_indices(seed: int, step: int, batch_size: int, members: tuple[np.ndarray, ...]) -> np.ndarray:
    """Returns the examples of step `step`, counted from 0, with every class equally often.

    The classes come in shuffled rounds, each of which takes the next example of every class. Each class runs through
    permutations of its own, so that no example comes twice before all others of its class came once.

    Args:
      members: positions of the examples of each class.

    Returns:
      int64 [batch_size].
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    rounds, turns = np.divmod(positions, len(members))
    classes = np.empty(batch_size, np.int64)
    for number in np.unique(rounds):
        order = permutation(seed, int(number), len(members), stream=1)
        classes[rounds == number] = order[turns[rounds == number]]
    chosen = np.empty(batch_size, np.int64)
    for label in np.unique(classes):
        own = members[label]
        chosen[classes == label] = own[_cycled(seed, rounds[classes == label], len(own), stream=2 + int(label))]
    return chosen


def _cycled(seed: int, positions: np.ndarray, n: int, stream: int) -> np.ndarray:
    """Entries of the endless sequence of permutations of `n`, at `positions`."""
    epochs = positions // n
    parts = np.empty(len(positions), np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        parts[here] = _permutations(seed, n, stream)(int(epoch))[positions[here] % n]
    return parts


@functools.lru_cache(maxsize=1024)
def _permutations(seed: int, n: int, stream: int) -> Callable[[int], np.ndarray]:
    """`permutation` of one stream, of which the last two epochs are kept."""
    return functools.lru_cache(maxsize=2)(lambda epoch: permutation(seed, epoch, n, stream))
