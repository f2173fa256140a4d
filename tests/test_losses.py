import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from fer_jax import losses
from fer_jax.errors import UserError

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(12, 7)).astype(np.float32) * 3
LABELS = RNG.integers(0, 7, 12)
WEIGHTS = tuple(RNG.uniform(0.2, 3, 7).tolist())


def mean(loss, logits, targets):
    values, weights = loss(logits, targets)
    return jnp.sum(values * weights) / jnp.sum(weights)


@pytest.mark.parametrize('smoothing', [0.0, 0.1])
@pytest.mark.parametrize(('weights', 'soft'), [((), False), (WEIGHTS, False), ((), True), (WEIGHTS, True)])
def test_value_and_gradient_are_torchs(smoothing, weights, soft):
    torch = pytest.importorskip('torch')
    targets = RNG.dirichlet(np.ones(7), 12).astype(np.float32) if soft else LABELS
    loss = losses.make('cross_entropy', label_smoothing=smoothing, class_weights=weights)
    value, gradient = jax.value_and_grad(lambda logits: mean(loss, logits, jnp.asarray(targets)))(LOGITS)
    logits = torch.tensor(LOGITS, requires_grad=True)
    reference = torch.nn.CrossEntropyLoss(torch.tensor(weights) if weights else None, label_smoothing=smoothing)
    expected = reference(logits, torch.tensor(targets))
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), atol=1e-6)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_it_is_finite_at_large_logits(dtype):
    logits = jnp.asarray([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], dtype)
    loss = losses.make('cross_entropy', label_smoothing=0.1)
    value, gradient = jax.value_and_grad(lambda x: mean(loss, x, jnp.array([1, 1])))(logits)
    assert np.isfinite(value) and np.isfinite(np.asarray(gradient, np.float32)).all()
    values, _ = losses.cross_entropy(logits, jnp.array([0, 1]))
    np.testing.assert_allclose(values, [0, np.log(2)], atol=1e-6)


def test_inverse_weights_are_scikit_learns():
    counts = np.bincount(LABELS, minlength=7) + 1
    labels = np.repeat(np.arange(7), counts)
    expected = compute_class_weight('balanced', classes=np.arange(7), y=labels)
    np.testing.assert_allclose(losses.class_weights(counts, 'inverse'), expected)
    assert losses.class_weights(counts, 'none') == ()


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match="loss.name='crossentropy' is unknown; the nearest is cross_entropy"):
        losses.make('crossentropy')
    with pytest.raises(UserError, match='label_smoothing=1.5'):
        losses.make('cross_entropy', label_smoothing=1.5)
    with pytest.raises(UserError, match='class_weights: class 1 has 0.0; expected a number above 0'):
        losses.make('cross_entropy', class_weights=(1.0, 0.0))
    with pytest.raises(UserError, match="class_weights='balanced' is unknown"):
        losses.class_weights(np.ones(3), 'balanced')
    with pytest.raises(UserError, match='class 1 has no training example'):
        losses.class_weights(np.array([3, 0, 2]), 'inverse')


def test_multi_target_takes_the_best_of_the_votes():
    """By hand: votes 3/5 and 2/5, probabilities 0.2 and 0.7; a class without votes never counts."""
    logits = jnp.log(jnp.asarray([[0.2, 0.7, 0.1], [0.05, 0.05, 0.9]]))
    targets = jnp.asarray([[0.6, 0.4, 0.0], [1.0, 0.0, 0.0]])
    loss, weight = losses.make('multi_target', target='multi_target')(logits, targets)
    np.testing.assert_allclose(loss, -np.log([0.28, 0.05]), rtol=1e-5)
    assert weight.tolist() == [1, 1]
    gradient = jax.grad(lambda x: losses.multi_target(x, targets)[0].sum())(logits)
    np.testing.assert_allclose(gradient[0], [0.2, 0.7 - 1, 0.1], rtol=1e-5)
    for settings in ({'target': 'label'}, {'target': 'multi_target', 'label_smoothing': 0.1}):
        with pytest.raises(UserError, match='multi_target'):
            losses.make('multi_target', **settings)
    with pytest.raises(UserError, match='multi_target needs to be set in both'):
        losses.make('cross_entropy', target='multi_target')
