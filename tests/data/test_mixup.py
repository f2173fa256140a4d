"""mixup and CutMix: every pixel and every target against the papers' formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.data.augmentation.mixup import cut, mix, symmetric_beta
from tests.lazy import lazy

stats = lazy('scipy.stats')

COUNT, CLASSES = 64, 5
X = np.random.default_rng(0).uniform(0, 255, (COUNT, 12, 16, 3)).astype(np.float32)
TARGETS = np.eye(CLASSES, dtype=np.float32)[np.arange(COUNT) % CLASSES]
PARTNER, PARTNER_TARGETS = np.roll(X, 1, 0), np.roll(TARGETS, 1, 0)
JITTED = jax.jit(mix, static_argnames=('mixup', 'cutmix'))


def mixed(seed=0, **alphas):
    """Images, and the share that the targets keep, the same in every row."""
    x, targets = map(np.asarray, JITTED(X, TARGETS, jax.random.key(seed), **alphas))
    share = (targets * TARGETS).sum(1).mean()  # neighbours have different classes
    np.testing.assert_allclose(targets, share * TARGETS + (1 - share) * PARTNER_TARGETS, atol=1e-5)
    return x, share


def test_without_alpha_nothing_is_mixed():
    x, targets = mix(X, TARGETS, jax.random.key(0))
    assert x is X and targets is TARGETS


def test_mixup_blends_images_as_it_blends_targets():
    shares = []
    for seed in range(5):
        x, share = mixed(seed, mixup=0.4)
        np.testing.assert_allclose(x, share * X + (1 - share) * PARTNER, atol=1e-2)
        shares.append(share)
    assert len(set(shares)) == 5


def test_cutmix_pastes_one_rectangle_and_counts_its_pixels():
    for seed in range(20):
        x, share = mixed(seed, cutmix=1.0)
        own, others = (x == X).all(-1), (x == PARTNER).all(-1)
        assert (own ^ others).all()
        mask = others[0]
        assert (others == mask).all()
        assert own.mean() == pytest.approx(share, abs=1e-5)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert (np.diff(rows) == 1).all() and (np.diff(columns) == 1).all()
        assert mask.sum() == len(rows) * len(columns)


def test_the_rectangle_is_the_papers():
    """Yun et al. 2019, section 3.1: sides W sqrt(1 - share) and H sqrt(1 - share) about a point, cut at the border."""
    rng = np.random.default_rng(1)
    share, middles = rng.uniform(size=200), rng.uniform(size=(200, 2))
    masks = np.asarray(jax.vmap(lambda *one: cut(*one, (40, 30)))(jnp.asarray(share), jnp.asarray(middles)))
    for mask, kept, (y, x) in zip(masks, share, middles, strict=True):
        tall, wide = 40 * np.sqrt(1 - kept), 30 * np.sqrt(1 - kept)
        rows = min(40, y * 40 + tall / 2) - max(0, y * 40 - tall / 2)
        columns = min(30, x * 30 + wide / 2) - max(0, x * 30 - wide / 2)
        assert abs(mask.any(1).sum() - rows) <= 1
        assert abs(mask.any(0).sum() - columns) <= 1


@pytest.mark.parametrize('alpha', [0.05, 0.2, 0.5, 1.0, 4.0, 16.0])
def test_shares_are_of_the_beta_distribution(alpha):
    keys = jax.random.split(jax.random.key(2), 20_000)
    shares = np.asarray(jax.vmap(symmetric_beta, (0, None))(keys, jnp.float32(alpha)))
    assert shares.min() >= 0 and shares.max() <= 1
    # Below 1e-6 float32 has too few numbers beside 1 for a test of the whole distribution.
    middle = shares[(shares > 1e-6) & (shares < 1 - 1e-6)]
    low, high = stats.beta.cdf([1e-6, 1 - 1e-6], alpha, alpha)
    assert abs(len(middle) / 20_000 - (high - low)) < 0.015
    assert stats.kstest(middle, lambda x: (stats.beta.cdf(x, alpha, alpha) - low) / (high - low)).pvalue > 1e-3


def test_with_both_on_each_batch_gets_one():
    cuts = []
    for seed in range(60):
        x, share = mixed(seed, mixup=1.0, cutmix=1.0)
        pasted = ((x == X) | (x == PARTNER)).mean()
        assert pasted == 1 or pasted < 0.2
        cuts.append(pasted == 1)
    assert abs(np.mean(cuts) - 0.5) < 4 * (0.25 / 60) ** 0.5
