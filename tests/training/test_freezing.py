import jax.numpy as jnp
import pytest
from flax import nnx

from configs import default
from fer_jax import models
from fer_jax.errors import UserError
from fer_jax.models.parameters import flatten, stage_of, unflatten
from fer_jax.training.freezing import partition

STAGES = {'stem': ('conv1', 'bn1'), 'layer1': ('layer1',), 'layer10': ('layer10',), 'pool': (), 'head': ('head',)}
PATHS = ['conv1.kernel', 'bn1.scale', 'layer1.0.conv1.kernel', 'layer10.0.conv1.kernel', 'head.primary.kernel']


class Nested(nnx.Module):
    def __init__(self):
        self.layer1 = nnx.List([nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Linear(3, 2, rngs=nnx.Rngs(1))])
        self.head = nnx.Dict({'primary': nnx.Linear(2, 2, rngs=nnx.Rngs(2))})

    def __call__(self, x):
        return self.head['primary'](self.layer1[1](self.layer1[0](x)))


def test_a_flat_tree_rebuilds_the_module():
    model = Nested()
    graphdef, params = nnx.split(model, nnx.Param)
    flat = flatten(params)
    assert set(flat) == {
        f'{module}.{leaf}' for module in ('layer1.0', 'layer1.1', 'head.primary') for leaf in ('kernel', 'bias')
    }
    x = jnp.ones((4, 2))
    assert jnp.array_equal(nnx.merge(graphdef, unflatten(flat), copy=True)(x), model(x))


def test_stage_names_that_begin_alike_are_kept_apart():
    assert stage_of('layer10.0.conv1.kernel', STAGES) == 'layer10'
    assert stage_of('layer1.0.conv1.kernel', STAGES) == 'layer1'
    with pytest.raises(ValueError, match='belongs to no stage'):
        stage_of('fc.kernel', STAGES)


def test_first_match_wins_and_zero_freezes():
    result = partition(PATHS, STAGES, [('head/', 1.0), ('layer10/.*kernel', 0.1), ('.*', 0.0)])
    assert result.rates == dict(zip(PATHS, [0.0, 0.0, 0.0, 0.1, 1.0], strict=True))
    assert result.stages == {'layer10', 'head'}
    assert result.boundary == 'layer10'
    trainable, frozen = result.split(dict.fromkeys(PATHS, 0))
    assert list(trainable) == PATHS[3:] and list(frozen) == PATHS[:3]


@pytest.mark.parametrize(
    ('rates', 'message'),
    [
        ([('head/.*', 1.0)], "no rule covers 'stem/conv1.kernel'"),
        ([('haed/.*', 1.0), ('.*', 0.0)], "'haed/.*' matches no parameter"),
        ([('.*', 1.0), ('head/.*', 0.0)], "'head/.*' matches no parameter that an earlier rule has not taken"),
        ([('.*', 0.0)], 'freeze everything'),
    ],
)
def test_a_wrong_table_is_named(rates, message):
    with pytest.raises(UserError) as caught:
        partition(PATHS, STAGES, rates)
    assert message in str(caught.value)


def test_config_helpers_compute_tables():
    """On ResNet-18, by hand: the decay of each stage, and what each phase of a gradual unfreezing trains."""
    network = nnx.eval_shape(lambda: models.create('resnet18', classes=7, rngs=nnx.Rngs(0)))
    paths = list(flatten(nnx.state(network, nnx.Param)))
    stages = ('stem', 'layer1', 'layer2', 'layer3', 'layer4', 'head')
    decayed = partition(paths, network.stages, default.layer_decay(stages, 0.5))
    expected = dict(zip(stages, (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1), strict=True))
    assert all(rate == expected[stage_of(path, network.stages)] for path, rate in decayed.rates.items())
    phases = default.gradual_unfreezing(('layer3', 'layer4', 'head'), epochs=2, learning_rate=1e-4)
    trained = [partition(paths, network.stages, phase.rates) for phase in phases]
    assert [one.boundary for one in trained] == ['head', 'layer4', 'layer3']
    assert trained[2].stages == {'layer3', 'layer4', 'head'} and all(phase.epochs == 2 for phase in phases)
