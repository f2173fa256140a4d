"""mixup and CutMix: every pixel and every target against the papers' formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from fer_jax.data.mix import cut, mix, symmetric_beta

COUNT, CLASSES = 64, 5
X = np.random.default_rng(0).uniform(0, 255, (COUNT, 12, 16, 3)).astype(np.float32)
TARGETS = np.eye(CLASSES, dtype=np.float32)[np.arange(COUNT) % CLASSES]
PARTNER, PARTNER_TARGETS = np.roll(X, 1, 0), np.roll(TARGETS, 1, 0)
JITTED = jax.jit(mix, static_argnames=('mixup', 'cutmix'))


def mixed(seed=0, **alphas):
    x, targets = map(np.asarray, JITTED(X, TARGETS, jax.random.key(seed), **alphas))
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-5)
    share = (targets * TARGETS).sum(1)  # neighbours have different classes
    np.testing.assert_allclose(targets, share[:, None] * TARGETS + (1 - share[:, None]) * PARTNER_TARGETS, atol=1e-5)
    return x, share


def test_without_alpha_nothing_is_mixed():
    x, targets = mix(X, TARGETS, jax.random.key(0))
    assert x is X and targets is TARGETS


def test_mixup_blends_images_as_it_blends_targets():
    x, share = mixed(mixup=0.4)
    weight = share[:, None, None, None]
    np.testing.assert_allclose(x, weight * X + (1 - weight) * PARTNER, atol=1e-2)
    assert len(np.unique(share.round(3))) > COUNT / 2  # one each


def test_cutmix_pastes_one_rectangle_and_counts_its_pixels():
    x, share = mixed(cutmix=1.0)
    own, others = (x == X).all(-1), (x == PARTNER).all(-1)
    assert (own ^ others).all()
    np.testing.assert_allclose(own.mean((1, 2)), share, atol=1e-5)
    for mask in others:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            assert mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
            assert mask.sum() == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)


def test_the_rectangle_is_the_papers():
    """Yun et al. 2019, section 3.1: sides W sqrt(1 - share) and H sqrt(1 - share) about a point, cut at the border."""
    rng = np.random.default_rng(1)
    share, middles = rng.uniform(size=200), rng.uniform(size=(200, 2))
    masks = np.asarray(cut(jnp.asarray(share), jnp.asarray(middles), (40, 30)))
    for mask, kept, (y, x) in zip(masks, share, middles, strict=True):
        tall, wide = 40 * np.sqrt(1 - kept), 30 * np.sqrt(1 - kept)
        rows = min(40, y * 40 + tall / 2) - max(0, y * 40 - tall / 2)
        columns = min(30, x * 30 + wide / 2) - max(0, x * 30 - wide / 2)
        assert abs(mask.any(1).sum() - rows) <= 1
        assert abs(mask.any(0).sum() - columns) <= 1


@pytest.mark.parametrize('alpha', [0.05, 0.2, 0.5, 1.0, 4.0, 16.0])
def test_shares_are_of_the_beta_distribution(alpha):
    shares = np.asarray(symmetric_beta(jax.random.key(2), jnp.float32(alpha), 20_000))
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
