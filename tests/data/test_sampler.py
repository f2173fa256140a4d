import numpy as np

from fer_jax.data.loading.sampler import indices


def test_every_epoch_is_a_permutation_and_nothing_is_dropped():
    n, batch = 103, 8
    taken = np.concatenate([indices(7, step, batch, n) for step in range(40)])
    epochs = [taken[first : first + n] for first in range(0, 3 * n, n)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(n))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], np.arange(n))


def test_the_order_is_that_of_philox_and_stays_so():
    """A run is repeated by its seed in later versions too."""
    keys = [np.array([7, epoch], np.uint64) for epoch in range(4)]
    epochs = [np.random.Generator(np.random.Philox(key=key)).permutation(103) for key in keys]
    taken = np.concatenate([indices(7, step, 8, 103) for step in range(40)])
    assert np.array_equal(taken, np.concatenate(epochs)[:320])


def test_a_step_does_not_depend_on_the_steps_before():
    forward = [indices(3, step, 8, 50) for step in range(20)]
    for step in reversed(range(20)):
        assert np.array_equal(indices(3, step, 8, 50), forward[step])


def test_the_samples_do_not_depend_on_the_batch_size_and_do_on_the_seed():
    small = np.concatenate([indices(3, step, 5, 50) for step in range(20)])
    large = np.concatenate([indices(3, step, 25, 50) for step in range(4)])
    assert np.array_equal(small, large)
    assert not np.array_equal(small, np.concatenate([indices(4, step, 5, 50) for step in range(20)]))
