import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fer_jax.errors import UserError
from fer_jax.training import optimizers, schedules

RNG = np.random.default_rng(0)
PARAMS = {'a.kernel': RNG.normal(size=(4, 3)).astype(np.float32), 'a.bias': RNG.normal(size=3).astype(np.float32)}
TARGETS = [{name: RNG.normal(size=leaf.shape).astype(np.float32) for name, leaf in PARAMS.items()} for _ in range(20)]


def make(name, rate=0.05, rates=None, schedule=None, **options):
    return optimizers.make(
        name,
        schedule=schedule or schedules.make_schedule('constant', learning_rate=rate, steps=20),
        rates=rates or dict.fromkeys(PARAMS, 1.0),
        decay_mask={'a.kernel': True, 'a.bias': False},
        **options,
    )


def ours(tx, params=PARAMS):
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    for targets in TARGETS:
        gradients = {name: jnp.sin(params[name] - targets[name]) for name in params}
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
    return params


def torchs(torch, make_optimizer, factors=None):
    params = {name: torch.nn.Parameter(torch.tensor(leaf)) for name, leaf in PARAMS.items()}
    optimizer = make_optimizer(params)
    for step, targets in enumerate(TARGETS):
        for name, parameter in params.items():
            parameter.grad = torch.sin(parameter.detach() - torch.tensor(targets[name]))
        for group in optimizer.param_groups:
            group['lr'] = group['initial'] * (factors[step] if factors else 1)
        optimizer.step()
    return {name: parameter.detach().numpy() for name, parameter in params.items()}


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('sgd', {'momentum': 0.0}),
        ('sgd', {'momentum': 0.9, 'weight_decay': 0.1}),
        ('sgd', {'momentum': 0.9, 'weight_decay': 0.1, 'nesterov': True}),
        ('adam', {'weight_decay': 0.1}),
        ('adamw', {'weight_decay': 0.1}),
        ('radam', {'weight_decay': 0.1}),
    ],
)
def test_twenty_steps_are_torchs(name, options):
    """With decay on kernels alone, and the bias at a tenth of the rate."""
    torch = pytest.importorskip('torch')
    rates = {'a.kernel': 1.0, 'a.bias': 0.1}
    result = ours(make(name, rates=rates, **options))
    passed = {key: value for key, value in options.items() if key in ('momentum', 'nesterov')}
    decay = options.get('weight_decay', 0.0)

    def reference(params):
        groups = [
            {'params': [params['a.kernel']], 'weight_decay': decay, 'lr': 0.05, 'initial': 0.05},
            {'params': [params['a.bias']], 'weight_decay': 0.0, 'lr': 0.005, 'initial': 0.005},
        ]
        if name == 'radam':
            return torch.optim.RAdam(groups, decoupled_weight_decay=True)
        return {'sgd': torch.optim.SGD, 'adam': torch.optim.Adam, 'adamw': torch.optim.AdamW}[name](groups, **passed)

    # RAdam's rectification is a difference of numbers near 2,000, which optax takes in float32
    bound = {'sgd': 2e-6, 'radam': 2e-4}.get(name, 1e-5)
    for path, expected in torchs(torch, reference).items():
        np.testing.assert_allclose(result[path], expected, atol=bound)


@pytest.mark.parametrize('name', ['lion', 'lamb'])
def test_twenty_steps_are_the_papers(name):
    """Written out in float64: Lion's algorithm 2, LAMB's algorithm 2 with the identity as scaling function."""
    result = ours(make(name, weight_decay=0.1))
    for path, leaf in PARAMS.items():
        x, decay = leaf.astype(np.float64), 0.1 if path == 'a.kernel' else 0.0
        m, v = np.zeros_like(x), np.zeros_like(x)
        for step, targets in enumerate(TARGETS, 1):
            g = np.sin(x - targets[path])
            if name == 'lion':
                update = np.sign(0.9 * m + 0.1 * g) + decay * x
                m = 0.99 * m + 0.01 * g
            else:
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                update = m / (1 - 0.9**step) / (np.sqrt(v / (1 - 0.999**step)) + 1e-6) + decay * x
                update *= np.linalg.norm(x) / np.linalg.norm(update)
            x -= 0.05 * update
        np.testing.assert_allclose(result[path], x, atol=2e-5)


def test_muon_makes_kernels_orthogonal_and_leaves_the_rest_to_adam():
    """Jordan et al. 2024 written out in float64, at Liu et al.'s (2025) size, of a convolution's kernel as a matrix."""
    shapes = {'a.kernel': (3, 3, 2, 5), 'a.bias': (5,), 'depthwise.kernel': (3, 3, 1, 5), 'head.kernel': (5, 2)}
    start = {path: RNG.normal(size=shape) for path, shape in shapes.items()}
    gradients = [{path: RNG.normal(size=shape) for path, shape in shapes.items()} for _ in range(5)]
    tx = optimizers.make(
        'muon',
        schedule=schedules.make_schedule('constant', learning_rate=0.05, steps=5),
        rates=dict.fromkeys(shapes, 1.0),
        decay_mask={path: path.endswith('kernel') for path in shapes},
        weight_decay=0.1,
    )
    params = {path: jnp.asarray(leaf, jnp.float32) for path, leaf in start.items()}
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(jax.tree.map(jnp.float32, gradient), state, params)
        params = optax.apply_updates(params, updates)
    for path, x in start.items():
        m, v = np.zeros_like(x), np.zeros_like(x)
        for step, gradient in enumerate(gradients, 1):
            g = gradient[path]
            if path == 'a.kernel':
                m = 0.95 * m + 0.05 * g
                matrix = (0.95 * m / (1 - 0.95 ** (step + 1)) + 0.05 * g / (1 - 0.95**step)).reshape(-1, 5).T
                matrix /= np.linalg.norm(matrix)
                for _ in range(5):
                    square = matrix @ matrix.T
                    matrix = 3.4445 * matrix + (-4.775 * square + 2.0315 * square @ square) @ matrix
                values = np.linalg.svd(matrix)[1]
                assert values.min() > 0.6 and values.max() < 1.3
                update = 0.2 * 18**0.5 * matrix.T.reshape(x.shape)
            else:
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
                ahead = 0.9 * m / (1 - 0.9 ** (step + 1)) + 0.1 * g / (1 - 0.9**step)
                update = ahead / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
            x = x - 0.05 * (update + 0.1 * x * path.endswith('kernel'))
        np.testing.assert_allclose(params[path], x, atol=1e-5, err_msg=path)


def test_one_cycle_is_torchs():
    torch = pytest.importorskip('torch')
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3.0, total_steps=50, pct_start=0.3)
    expected = []
    for _ in range(50):
        expected.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        reference.step() if len(expected) < 50 else None
    schedule = schedules.make_schedule('one_cycle', learning_rate=3.0, steps=50, warmup_steps=15)
    np.testing.assert_allclose([schedule(step) for step in range(50)], expected, rtol=1e-4)


def test_clipping_is_by_the_norm_of_the_trainable_gradients():
    tx = make('sgd', rate=1.0, momentum=0.0, clip=0.5)
    params = jax.tree.map(jnp.zeros_like, PARAMS)
    gradients = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(gradients, tx.init(params), params)
    assert float(optax.tree.norm(updates)) == pytest.approx(0.5, rel=1e-5)


def test_schedules_are_their_formulas():
    make = schedules.make_schedule
    constant = make('constant', learning_rate=2.0, steps=10, warmup_steps=4)
    np.testing.assert_allclose([constant(step) for step in range(6)], [0.5, 1, 1.5, 2, 2, 2])
    step = make('step', learning_rate=1.0, steps=10, step_every=3, step_factor=0.1)
    np.testing.assert_allclose([step(t) for t in range(7)], [1, 1, 1, 0.1, 0.1, 0.1, 0.01], rtol=1e-6)
    falling = make('exponential', learning_rate=2.0, steps=10, step_every=4, step_factor=0.25)
    np.testing.assert_allclose([falling(t) for t in (0, 2, 4, 8)], [2, 1, 0.5, 0.125], rtol=1e-6)
    cosine = make('cosine', learning_rate=3.0, steps=12, warmup_steps=2)
    expected = [1.5, 3.0] + [1.5 * (1 + np.cos(np.pi * t / 10)) for t in range(11)]
    np.testing.assert_allclose([cosine(t) for t in range(13)], expected, atol=1e-6)


def test_wrong_settings_are_named():
    with pytest.raises(UserError, match="optimizer='adamx' is unknown; the nearest is adam"):
        make('adamx')
    with pytest.raises(UserError, match="schedule='cosin' is unknown; the nearest is cosine"):
        schedules.make_schedule('cosin', learning_rate=1, steps=1)
    with pytest.raises(UserError, match='warmup_epochs takes 10 steps of a phase that has 10'):
        schedules.make_schedule('cosine', learning_rate=1, steps=10, warmup_steps=10)
