"""Losses beside that of the labels, against NumPy and torch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from fer_jax.errors import UserError
from fer_jax.models.parameters import Variables
from fer_jax.training import auxiliary_losses, setup
from fer_jax.training.losses import cross_entropy
from fer_jax.training.phase_program import PhaseProgram
from tests.data.images import link_ck48


def test_coral_is_the_distance_of_covariances():
    rng = np.random.default_rng(3)
    ours, theirs = rng.normal(size=(20, 2, 2, 5)), 2 * rng.normal(size=(9, 5))
    expected = np.square(np.cov(ours.mean((1, 2)).T) - np.cov(theirs.T)).sum() / (4 * 5**2)
    assert auxiliary_losses.coral(jnp.asarray(ours), jnp.asarray(theirs)) == pytest.approx(expected, rel=1e-5)


def test_attention_consistency_is_the_authors():
    """Their code, in torch: maps of every class by the detached weights of the last layer, one of them mirrored."""
    torch = pytest.importorskip('torch')
    rng = np.random.default_rng(1)
    maps, mirrored = (rng.normal(size=(3, 4, 5, 6)).astype(np.float32) for _ in range(2))
    kernel = rng.normal(size=(6, 7)).astype(np.float32)
    ours = torch.tensor(maps.transpose(0, 3, 1, 2), requires_grad=True)
    theirs = torch.tensor(mirrored.transpose(0, 3, 1, 2))
    weights = torch.tensor(kernel.T).view(1, 7, 6, 1, 1)
    heat, flipped = ((features.unsqueeze(1) * weights).sum(2) for features in (ours, theirs))
    expected = torch.nn.functional.mse_loss(heat, torch.flip(flipped, [3]))
    expected.backward()
    found, slopes = jax.value_and_grad(auxiliary_losses.attention_consistency, (0, 2))(maps, mirrored, kernel)
    assert found == pytest.approx(expected.item(), rel=1e-5)
    np.testing.assert_allclose(slopes[0].transpose(0, 3, 1, 2), ours.grad.numpy(), atol=1e-6)
    assert not np.asarray(slopes[1]).any()


@pytest.fixture
def config(shared_data, tmp_path):
    """Two classes of CK+48, a small ResNet at 32 px."""
    link_ck48(shared_data, tmp_path, ('happy', 'surprise'), 12)
    config = default.get_config()
    config.model.update({'name': 'resnet8_small', 'weights': 'scratch', 'image_size': 32, 'channels': 1})
    config.data.update({'name': '', 'dir': str(tmp_path), 'batch_size': 8})
    config.data.augment = default.augment('none')
    config.loss.consistency = 5.0
    return config


@pytest.mark.slow
@pytest.mark.parametrize('accumulate', [1, 2])
def test_a_step_adds_it_to_the_loss_of_the_plain_images(config, accumulate):
    """The gradient's norm, from the two passes written out; microbatches have their own BatchNorm statistics."""
    config.phases = (default.phase(optimizer='sgd', accumulate=accumulate),)
    run = setup.prepare(json.loads(config.to_json()))
    params, stats = run.initial()
    program = PhaseProgram(run, run.phases[0])
    state, fixed = program.init_state(0, Variables(params, stats))
    index, split = run.tasks['primary'].loader.indices(0), run.data.splits['train']

    @jax.jit
    def objective(params, stats, images, labels):
        x = run.network.normalise(images.astype(jnp.float32))
        both = jnp.concatenate([x, x[:, :, ::-1]])
        logits, stats, maps = run.network.forward(
            Variables(params, stats), both, train=run.phases[0].partition.stages, key=jax.random.key(0), tell='pool'
        )
        count = len(labels)
        fixed_kernel = jax.lax.stop_gradient(params['head.primary.kernel'])
        attention = maps @ fixed_kernel
        apart = jnp.mean((attention[:count] - attention[count:, :, ::-1]) ** 2)
        return cross_entropy(logits['primary'][:count], labels)[0].mean() + 5.0 * apart, stats

    gradients = []
    for part in range(accumulate):
        rows = index[part::accumulate]
        slope, stats = jax.grad(objective, has_aux=True)(params, stats, split.read(rows), split.labels[rows])
        gradients.append(slope)
    mean = {path: sum(np.asarray(one[path]) for one in gradients) / accumulate for path in params}
    norm = np.sqrt(sum(np.square(leaf.astype(np.float64)).sum() for leaf in mean.values()))
    state = program.step_function()(state, fixed, run.loader.device_data, run.loader.host_batches([0]), 1)
    assert state.sums['gradient_norm'] == pytest.approx(norm, rel=1e-3)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'model.name': 'vgg11'}, 'does not read its last map'),
        ({'model.head_inputs': ('layer3', 'layer2')}, 'does not read its last map'),
        ({'phases[0].cache_views': 1, 'phases[0].rates': default.HEAD_ONLY}, 'set cache_views to 0'),
    ],
)
def test_where_it_cannot_be(config, change, message):
    config.update_from_flattened_dict({key: value for key, value in change.items() if 'phases' not in key})
    config.phases = (default.phase(**{key[10:]: value for key, value in change.items() if 'phases' in key}),)
    with pytest.raises(UserError, match=message):
        setup.prepare(json.loads(config.to_json()))
