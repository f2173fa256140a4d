import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.training import losses
from tests.lazy import lazy

class_weight = lazy('sklearn.utils.class_weight')

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


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


SOFT = RNG.dirichlet(np.ones(7), 12)
COUNTS = RNG.integers(1, 500, 7)
FORMULAS = {
    'focal': ({'gamma': 2.0}, lambda z, t: -(t * (1 - softmax(z)) ** 2 * np.log(softmax(z))).sum(-1).mean()),
    'focal, gamma 0.5': (
        {'gamma': 0.5},
        lambda z, t: -(t * (1 - softmax(z)) ** 0.5 * np.log(softmax(z))).sum(-1).mean(),
    ),
    'focal, alpha 0.25': (
        {'gamma': 2.0, 'alpha': 0.25},
        lambda z, t: -0.25 * (t * (1 - softmax(z)) ** 2 * np.log(softmax(z))).sum(-1).mean(),
    ),
    'focal, weighted': (
        {'gamma': 1.5, 'class_weights': WEIGHTS},
        lambda z, t: (
            -(t * WEIGHTS * (1 - softmax(z)) ** 1.5 * np.log(softmax(z))).sum()
            / ((t @ WEIGHTS).sum() if np.isin(t, (0, 1)).all() else len(t))
        ),
    ),
    'logit_adjusted': (
        {'tau': 1.3, 'counts': COUNTS},
        lambda z, t: -(t * np.log(softmax(z + 1.3 * np.log(COUNTS / COUNTS.sum())))).sum(-1).mean(),
    ),
    'generalised_cross_entropy': ({'q': 0.7}, lambda z, t: (t * (1 - softmax(z) ** 0.7)).sum(-1).mean() / 0.7),
}


@pytest.mark.parametrize('soft', [False, True])
@pytest.mark.parametrize('case', FORMULAS)
def test_value_and_gradient_are_the_formulas(case, soft):
    """In float64, the gradient by central differences."""
    options, formula = FORMULAS[case]
    loss = losses.make(case.split(',')[0], **options)
    targets = SOFT if soft else np.eye(7)[LABELS]
    given = jnp.asarray(SOFT, jnp.float32) if soft else jnp.asarray(LABELS)
    value, gradient = jax.value_and_grad(lambda logits: mean(loss, logits, given))(LOGITS)
    logits = LOGITS.astype(np.float64)
    np.testing.assert_allclose(value, formula(logits, targets), rtol=1e-5)
    expected = np.zeros_like(logits)
    for at in np.ndindex(logits.shape):
        step = np.zeros_like(logits)
        step[at] = 1e-6
        expected[at] = (formula(logits + step, targets) - formula(logits - step, targets)) / 2e-6
    np.testing.assert_allclose(gradient, expected, atol=2e-6)


def test_special_cases_are_cross_entropy():
    plain = losses.make('cross_entropy')(LOGITS, jnp.asarray(LABELS))
    for other in (
        losses.make('focal', gamma=0.0),
        losses.make('logit_adjusted', tau=0.0, counts=COUNTS),
        losses.make('logit_adjusted', counts=np.full(7, 9)),
    ):
        for ours, theirs in zip(other(LOGITS, jnp.asarray(LABELS)), plain, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    near = losses.make('generalised_cross_entropy', q=1e-3)(LOGITS, jnp.asarray(LABELS))[0]
    np.testing.assert_allclose(near, plain[0], rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('case', FORMULAS)
def test_each_is_finite_at_large_logits(case, dtype):
    loss = losses.make(case.split(',')[0], **FORMULAS[case][0])
    for scale in (1e4, -1e4, 0.0):
        logits = (scale * jnp.eye(7)).astype(dtype)
        value, gradient = jax.value_and_grad(lambda x: mean(loss, x, jnp.arange(7)))(logits)  # noqa: B023
        assert np.isfinite(value) and np.isfinite(np.asarray(gradient, np.float32)).all()


def test_inverse_weights_are_scikit_learns():
    counts = np.bincount(LABELS, minlength=7) + 1
    labels = np.repeat(np.arange(7), counts)
    expected = class_weight.compute_class_weight('balanced', classes=np.arange(7), y=labels)
    np.testing.assert_allclose(losses.class_weights(counts, 'inverse'), expected)
    assert losses.class_weights(counts, 'none') == ()


def test_effective_weights_are_the_papers():
    """Proportional to (1 - beta) / (1 - beta^n): even as beta goes to 0, inverse as it goes to 1."""
    counts = np.array([436, 7215, 3995])
    ours = np.array(losses.class_weights(counts, 'effective', beta=0.999))
    expected = (1 - 0.999) / (1 - 0.999**counts)
    np.testing.assert_allclose(ours / ours[0], expected / expected[0])
    assert (ours * counts).sum() / counts.sum() == pytest.approx(1)
    np.testing.assert_allclose(losses.class_weights(counts, 'effective', beta=0.0), 1)
    inverse = losses.class_weights(counts, 'inverse')
    np.testing.assert_allclose(losses.class_weights(counts, 'effective', beta=1 - 1e-9), inverse, rtol=1e-4)
    assert losses.class_weights(counts, (1, 2.5, 3)) == (1.0, 2.5, 3.0)


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match="loss.name='crossentropy' is unknown; the nearest is cross_entropy"):
        losses.make('crossentropy')
    with pytest.raises(UserError, match='has 2 numbers, the data 3 classes'):
        losses.class_weights(np.ones(3), (1.0, 2.0))
    with pytest.raises(UserError, match='do not apply to the loss generalised_cross_entropy'):
        losses.make('generalised_cross_entropy', class_weights=(1.0, 2.0))
    with pytest.raises(UserError, match='examples of every class'):
        losses.make('logit_adjusted', counts=np.array([3, 0]))
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


@pytest.mark.parametrize('weights', [(), WEIGHTS])
def test_binary_cross_entropy_is_torchs(weights):
    torch = pytest.importorskip('torch')
    targets = (RNG.random((12, 7)) < 0.3).astype(np.float32)
    loss = losses.make('binary_cross_entropy', attributes=True, positive_weights=weights)
    value, gradient = jax.value_and_grad(lambda logits: mean(loss, logits, jnp.asarray(targets)))(LOGITS)
    logits = torch.tensor(LOGITS, requires_grad=True)
    factors = torch.tensor(weights) if weights else None
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.tensor(targets), pos_weight=factors)
    expected.backward()
    np.testing.assert_allclose(value, expected.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, logits.grad.numpy(), atol=1e-7)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_binary_cross_entropy_leaves_out_what_is_unknown(dtype):
    """Also at large logits, and where nothing of an example is known."""
    nan = np.nan
    targets = jnp.asarray([[1, 0, nan], [0, nan, nan], [nan, nan, nan]], jnp.float32)
    logits = jnp.asarray([[1e4, 1e4, -1e4], [-1e4, 1e4, 0], [1e4, -1e4, 0]], dtype)
    values, weights = losses.binary_cross_entropy(logits, targets, positive_weights=(2.0, 3.0, 4.0))
    np.testing.assert_allclose(values, [float(logits[0, 1]) / 2, 0, 0])
    assert weights.tolist() == [1, 1, 0]
    loss = losses.make('binary_cross_entropy', attributes=True)
    gradient = jax.grad(lambda x: mean(loss, x, targets))(logits)
    np.testing.assert_allclose(np.asarray(gradient, np.float32), [[0, 0.25, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(losses.attribute_hits(logits, targets), [0.5, 1, 0])


def test_kl_divergence_is_scipys():
    """Zero where the prediction is the target; its gradient is that of cross-entropy."""
    special = pytest.importorskip('scipy.special')
    targets = SOFT.copy()
    targets[:4, 2:] = 0
    targets /= targets.sum(1, keepdims=True)
    loss = losses.make('kl_divergence')
    expected = special.rel_entr(targets, softmax(LOGITS.astype(float))).sum(1)
    soft = jnp.asarray(targets, jnp.float32)
    np.testing.assert_allclose(loss(LOGITS, soft)[0], expected, rtol=1e-5)
    np.testing.assert_allclose(loss(jnp.log(SOFT), jnp.asarray(SOFT))[0], 0, atol=1e-6)
    gradient, plain = (jax.grad(lambda z, f=f: mean(f, z, soft))(LOGITS) for f in (loss, losses.cross_entropy))
    np.testing.assert_allclose(gradient, plain, atol=1e-7)
    hard = jnp.asarray(LABELS)
    np.testing.assert_allclose(loss(LOGITS, hard)[0], losses.cross_entropy(LOGITS, hard)[0])
    huge = jnp.full((1, 7), -1e4).at[0, 3].set(1e4)
    assert np.isfinite(loss(huge, soft[:1])[0]).all()


def test_positive_weights_are_absent_over_present():
    attributes = np.array([[1, 0], [0, 0], [0, 1], [np.nan, 0]], np.float32)
    assert losses.positive_weights(attributes, 'inverse') == (2.0, 3.0)
    assert losses.positive_weights(attributes, (2, 1.5)) == (2.0, 1.5)
    assert losses.positive_weights(None, 'none') == ()
    for given, scheme, message in (
        (None, 'inverse', 'set data.annotation'),
        (attributes, (1.0,), 'expected 2 numbers'),
        (attributes[:2], 'inverse', 'attribute 1 is the same'),
    ):
        with pytest.raises(UserError, match=message):
            losses.positive_weights(given, scheme)
    with pytest.raises(UserError, match='for attributes alone'):
        losses.make('binary_cross_entropy')
    with pytest.raises(UserError, match='the data has attributes'):
        losses.make('cross_entropy', attributes=True)


def test_squared_error_leaves_out_what_is_unknown():
    """Value and gradient, by the sums written out."""
    logits = jnp.array([[0.5, -2.0], [3.0, 1.0], [0.0, 0.0]])
    levels = jnp.array([[1.0, jnp.nan], [-1.0, 0.5], [jnp.nan, jnp.nan]])
    values, weights = losses.squared_error(logits, levels)
    np.testing.assert_allclose(values, [0.25, (16 + 0.25) / 2, 0])
    np.testing.assert_array_equal(weights, [1, 1, 0])
    gradient = jax.grad(lambda x: losses.squared_error(x, levels)[0].sum())(logits)
    np.testing.assert_allclose(gradient, [[-1, 0], [4, 0.5], [0, 0]])
