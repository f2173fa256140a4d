"""Which examples make up a step: a function of (seed, step) alone, so nothing about it is saved."""

import functools

import numpy as np


@functools.lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order of epoch `epoch`: int64 [n], by a counter-based generator keyed with (seed, epoch)."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64))).permutation(n)


def indices(seed: int, step: int, batch_size: int, n: int) -> np.ndarray:
    """int64 [batch_size]: the examples of step `step`, counted from 0.

    The epochs' permutations of `n` examples are laid end to end and cut into batches: a batch may straddle epochs, and
    every example comes once an epoch.
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs = positions // n
    parts = [permutation(seed, int(epoch), n)[positions[epochs == epoch] % n] for epoch in np.unique(epochs)]
    return np.concatenate(parts)
