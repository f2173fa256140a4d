"""What every network keeps to: the stage table, shape-first creation, compute types, tasks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fer_jax import models
from fer_jax.errors import UserError
from fer_jax.models.parameters import flatten, stage_of, unflatten
from tests.models.shapes import shapes_of
from tests.parity import forward

FAMILIES = (
    'resnet18', 'resnet8_small', 'resnet50_v2', 'vgg11', 'efficientnet_lite0', 'inception_resnet_v1',
    'inception_resnet_v2', 'mobilenet_v1_025', 'dlib_resnet', 'googlenet',
)  # fmt: skip
OPTIONS = [*((name, 'linear') for name in models.NAMES), *((name, 'mlp') for name in FAMILIES)]


def _randomised(model):
    """BatchNorm statistics away from 0 and 1, so that evaluation mode differs from training mode."""
    draw = np.random.default_rng(0)
    for path, variable in nnx.to_flat_state(nnx.state(model, nnx.BatchStat)):
        drawn = draw.normal(0, 0.2, variable.shape) if path[-1] == 'mean' else draw.uniform(0.5, 2, variable.shape)
        variable[...] = jnp.asarray(drawn, jnp.float32)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'head'), OPTIONS)
def test_every_leaf_belongs_to_one_stage_and_every_prefix_holds_one(name, head):
    model = shapes_of(name, head=head)
    leaves = [*flatten(nnx.state(model, nnx.Param)), *flatten(nnx.state(model, nnx.BatchStat))]
    for path in leaves:
        stage_of(path, model.stages)  # raises unless it is exactly one
    for stage, prefixes in model.stages.items():
        for prefix in prefixes:
            assert any(path.startswith(f'{prefix}.') for path in leaves), (stage, prefix)
    assert len(nnx.to_flat_state(nnx.state(model))) == len(leaves)  # nothing else in the tree, no generator


@pytest.mark.parametrize(('name', 'head'), OPTIONS)
def test_flat_trees_go_back_to_their_own_places(name, head):
    """Also where a list has more than ten entries, whose text sorts differently."""
    graphdef, params, stats = nnx.split(shapes_of(name, head=head), nnx.Param, nnx.BatchStat)
    params, stats = flatten(params), flatten(stats)
    named = {path: np.full(1, index) for index, path in enumerate((*params, *stats))}
    back = nnx.merge(
        graphdef, unflatten({p: named[p] for p in params}), unflatten({p: named[p] for p in stats}), copy=True
    )
    assert flatten(nnx.state(back, nnx.Param)) | flatten(nnx.state(back, nnx.BatchStat)) == named


@pytest.mark.parametrize('name', ['resnet8_small', pytest.param('efficientnet_lite0', marks=pytest.mark.slow)])
def test_graph_of_the_shapes_is_that_of_the_module(name):
    made, abstract = models.create(name, classes=7, rngs=nnx.Rngs(0)), shapes_of(name)
    graphdef, again = nnx.graphdef(made), nnx.graphdef(abstract)
    assert graphdef == again and hash(graphdef) == hash(again)
    assert jax.tree.map(jnp.shape, nnx.state(made)) == jax.tree.map(jnp.shape, nnx.state(abstract))
    others = [shapes_of(name, kernels='lax'), shapes_of(name, dropout=0.5), shapes_of(name, dtype=jnp.bfloat16)]
    assert all(nnx.graphdef(other) != graphdef for other in others)  # they need programs of their own


@pytest.mark.parametrize(
    ('name', 'stages'),
    [
        ('resnet18', ['stem', 'layer1', 'layer2', 'layer3', 'layer4', 'pool', 'head']),
        ('vgg16', [*(f'block{i}' for i in range(1, 6)), 'pool', 'fc6', 'fc7', 'head']),
        (
            'inception_resnet_v2',
            ['stem', 'mixed_5b', 'block35', 'mixed_6a', 'block17', 'mixed_7a', 'block8', 'conv_7b', 'pool', 'head'],
        ),
        ('efficientnet_lite0', ['stem', *(f'blocks{i}' for i in range(7)), 'conv_head', 'pool', 'head']),
    ],
)
def test_stage_names(name, stages):
    assert list(shapes_of(name).stages) == stages


@pytest.mark.parametrize('name', ['resnet8_small', pytest.param('efficientnet_lite0', marks=pytest.mark.slow)])
def test_cutting_at_any_stage_changes_nothing(name):
    """Also in training mode, where dropout's key depends on the stage and not on where the pass began."""
    model = _randomised(models.create(name, classes=7, dropout=0.5, rngs=nnx.Rngs(0)))
    x, key = jax.random.normal(jax.random.key(0), (2, 32, 32, 3)), jax.random.key(1)
    for train in ((), ('head',)):
        whole = models.run(model, x, train=train, key=key)['primary']
        assert np.std(whole, axis=0).min() > 0  # the images make a difference
        for stop in [*model.stages][1:]:
            below = models.run(model, x, stop=stop)
            above = models.run(model, below, start=stop, train=train, key=key)['primary']
            np.testing.assert_array_equal(above, whole, err_msg=stop)


def test_only_the_named_stages_train():
    model = _randomised(models.create('resnet8_small', classes=7, rngs=nnx.Rngs(0)))
    before = {path: np.asarray(leaf) for path, leaf in flatten(nnx.state(model, nnx.BatchStat)).items()}
    models.run(model, jax.random.normal(jax.random.key(0), (4, 32, 32, 3)), train=('layer2', 'head'))
    after = flatten(nnx.state(model, nnx.BatchStat))
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved == {path for path in before if path.startswith('layer2.')}


def test_dropout_depends_on_the_key_alone():
    model = models.create('resnet8_small', classes=7, dropout=0.5, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (4, 32, 32, 3))
    first, same, other = (
        models.run(model, x, train=('head',), key=jax.random.key(seed))['primary'] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - other).max() > 1e-3
    with pytest.raises(ValueError, match='key'):
        models.run(model, x, train=('head',))


@pytest.mark.parametrize(
    ('name', 'train'),
    [
        ('resnet8_small', False),
        ('resnet8_small', True),
        pytest.param('efficientnet_lite0', False, marks=pytest.mark.slow),
    ],
)
def test_bfloat16_computes_in_half_and_keeps_the_rest_in_full(name, train):
    """How near it comes is measured on real weights, in tests/pretrained: random ones amplify any rounding."""
    """Lite0 in training mode is left out: 50 normalisations by 64 values each make 0.1 of bfloat16, in lax too."""
    x = np.random.default_rng(0).normal(size=(16, 48, 48, 3)).astype(np.float32)
    logits, stats = {}, {}
    for dtype in (jnp.float32, jnp.bfloat16):
        model = _randomised(models.create(name, classes=7, dtype=dtype, rngs=nnx.Rngs(0)))
        assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype('float32')}
        assert models.run(model, jnp.asarray(x[:1]), stop=[*model.stages][1]).dtype == dtype
        logits[dtype], stats[dtype] = forward(model, x, train=train)
        assert {array.dtype for array in (logits[dtype], *stats[dtype].values())} == {np.dtype('float32')}
    assert not np.array_equal(logits[jnp.bfloat16], logits[jnp.float32])


@pytest.mark.slow
def test_grey_input():
    model = models.create('efficientnet_lite0', classes=7, channels=1, rngs=nnx.Rngs(0))
    assert model.conv_stem.kernel.shape == (3, 3, 1, 32)
    assert models.run(model, jnp.zeros((2, 32, 32, 1)))['primary'].shape == (2, 7)


def test_a_head_for_each_task():
    model = models.create('resnet8_small', classes={'primary': 7, 'valence': 2}, rngs=nnx.Rngs(0))
    logits = models.run(model, jnp.ones((3, 32, 32, 3)))
    assert {task: value.shape for task, value in logits.items()} == {'primary': (3, 7), 'valence': (3, 2)}


@pytest.mark.parametrize('name', ['resnet18', 'efficientnet_lite0'])
def test_classic_head_on_any_backbone(name):
    model = shapes_of(name, head='mlp')
    graphdef, state = nnx.split(model)
    shapes = jax.eval_shape(
        lambda state, x: models.run(nnx.merge(graphdef, state), x, stop='head'), state, jnp.zeros((2, 96, 64, 3))
    )
    features = {'resnet18': 512, 'efficientnet_lite0': 1280}[name]
    assert shapes.shape == (2, 7, 7, features)
    assert model.head.fc6.kernel.shape == (49 * features, 4096)


def test_user_mistakes():
    for options, message in (
        ({'name': 'resnet8'}, r"'resnet8'.*resnet18"),
        ({'head': 'conv'}, r"model.head='conv'.*linear or mlp"),
        ({'dropout': 1.0}, r'model.dropout=1.0'),
        ({'classes': {'a.b': 7}}, r"'a\.b'"),
        ({'classes': {'fc6': 7}}, r"'fc6'"),
    ):
        with pytest.raises(UserError, match=message):
            models.create(**{'name': 'resnet18', 'classes': 7, **options}, rngs=nnx.Rngs(0))


def test_unknown_stages_are_refused():
    model = shapes_of('resnet18')
    for options in ({'start': 'layer5'}, {'stop': 'bottom'}, {'train': ('heads',)}):
        with pytest.raises(ValueError, match='is not a stage'):
            models.run(model, None, **options)


@pytest.mark.slow
def test_a_network_with_published_weights(monkeypatch, tmp_path):
    """Its own head or a fresh one on the same backbone, which `run` stops before; heads can be replaced."""
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path))
    own = models.create('efficientnet_lite0', weights='imagenet')
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    x = own.preprocessing.normalise(images)
    np.testing.assert_allclose(x, (images - 127.0) / 128, atol=1e-5)
    logits = own(x)['primary']
    assert logits.shape == (2, 1000) and logits.std() > 0.5
    features = models.run(own, x, stop='head')
    ours = models.create('efficientnet_lite0', classes=7, weights='imagenet')
    np.testing.assert_allclose(models.run(ours, x, stop='head'), features, atol=1e-5)
    assert ours(x)['primary'].shape == (2, 7)
    other = models.create('efficientnet_lite0', classes=7, weights='imagenet', rngs=nnx.Rngs(1))
    assert not np.array_equal(other.head.primary.kernel, ours.head.primary.kernel)
    ours.head.primary = nnx.Linear(ours.head.primary.in_features, 3, rngs=nnx.Rngs(0))
    assert ours(x)['primary'].shape == (2, 3)
    with pytest.raises(UserError, match='classes=None keeps the head of the weights'):
        models.create('resnet18')
