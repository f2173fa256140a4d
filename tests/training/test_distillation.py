"""Teachers, what they say and how it is learnt; heads that read several stages."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import fer_jax
from configs import default
from fer_jax import models
from fer_jax.data.imaging.codec import decode
from fer_jax.errors import UserError
from fer_jax.evaluation import evaluate_runs
from fer_jax.models import registry
from fer_jax.runs import provenance
from fer_jax.training import auxiliary_losses, setup
from fer_jax.training.phase_program import PhaseProgram
from tests.data.images import link_ck48


@pytest.fixture(scope='module')
def faces(shared_data, tmp_path_factory):
    """Three classes of CK+48, 60 images."""
    return link_ck48(shared_data, tmp_path_factory.mktemp('faces'), ('happy', 'surprise', 'anger'), 20)


def config_of(faces, **phase):
    config = default.get_config()
    config.model.update({'name': 'resnet8_small', 'weights': 'scratch', 'image_size': 32, 'channels': 1})
    config.data.update({'name': '', 'dir': str(faces), 'batch_size': 16})
    config.phases = (default.phase(**{'epochs': 2, 'learning_rate': 3e-3} | phase),)
    return config


@pytest.fixture(scope='module')
def teacher(faces, tmp_path_factory):
    """It looks at larger images."""
    workdir = tmp_path_factory.mktemp('runs') / 'teacher'
    config = config_of(faces)
    config.model.image_size = 48
    fer_jax.train(config, workdir)
    return workdir


def student_of(faces, teacher, **fields):
    config = config_of(faces)
    config.distil.update({'teachers': (str(teacher),), **fields})
    return config


def plain(config):
    return json.loads(config.to_json())


def test_the_distillation_loss_is_hintons():
    """T^2 times the sum of p log(p / q); its gradient by the logits is T (q - p)."""
    rng = np.random.default_rng(0)
    logits, teachers, temperature = rng.normal(size=(5, 4)) * 3, rng.normal(size=(5, 4)) * 3, 2.5

    def softmax(x):
        return np.exp(x) / np.exp(x).sum(1, keepdims=True)

    p, q = softmax(teachers / temperature), softmax(logits / temperature)
    found = auxiliary_losses.distillation(jnp.asarray(logits), jnp.asarray(p), temperature)
    np.testing.assert_allclose(found, temperature**2 * (p * np.log(p / q)).sum(1), rtol=1e-5)
    slope = jax.grad(lambda x: auxiliary_losses.distillation(x, jnp.asarray(p), temperature).sum())(jnp.asarray(logits))
    np.testing.assert_allclose(slope, temperature * (q - p), atol=1e-5)


@pytest.mark.slow
def test_the_teacher_says_what_it_predicts(faces, teacher):
    """By another path: the prediction of each image at the teacher's own size, made softer."""
    run = setup.prepare(plain(student_of(faces, teacher, temperature=2.0, stages=('layer3',))))
    split = run.data.splits['train']
    images = np.stack([decode((faces / name).read_bytes(), 48, 1, name) for name in split.ids])
    probabilities = np.sqrt(fer_jax.load(teacher)(images))
    np.testing.assert_allclose(
        split.teacher_outputs['probabilities'], probabilities / probabilities.sum(1, keepdims=True), atol=1e-4
    )
    hints = split.teacher_outputs['hints']
    assert hints.shape == (len(split.ids), 256)
    np.testing.assert_allclose(hints.mean(0), 0, atol=1e-4)
    assert run.network.spec.classes['hints'] == tuple(map(str, range(256)))
    assert run.teachers[str(teacher)]['step'] == str(json.loads((teacher / 'results.json').read_text())['step'])


def test_the_network_that_comes_with_fer_jax_teaches(faces):
    config = student_of(faces, 'release:fer2013', temperature=1.0)
    config.data.rename = (('anger', 'angry'),)
    run = setup.prepare(plain(config))
    predictor, split = fer_jax.load('release:fer2013'), run.data.splits['train']
    assert (
        run.teachers['release:fer2013']['step'] == str(predictor.step)
        and len(run.teachers['release:fer2013']['sha256']) == 64
    )
    images = np.stack([decode((faces / name).read_bytes(), 48, 1, name) for name in split.ids])
    probabilities = predictor(images)[:, [predictor.classes.index(name) for name in run.data.classes]]
    np.testing.assert_allclose(
        split.teacher_outputs['probabilities'], probabilities / probabilities.sum(1, keepdims=True), atol=1e-4
    )


def test_another_network_in_the_place_of_a_teacher_is_told():
    before, now = ({'teachers': {'runs/a': {'step': '4', 'sha256': one}}} for one in 'xy')
    assert 'other networks of the teachers runs/a' in provenance.changes(before, now)[0]
    assert provenance.changes(before, before) == provenance.changes({}, now) == []


@pytest.mark.slow
def test_a_student_learns_from_its_teachers_alone(faces, teacher, tmp_path):
    """Of two teachers, with features, from images and from the feature cache alike."""
    config = student_of(faces, teacher, weight=1.0, stages=('layer2', 'layer3'))
    config.distil.teachers = (str(teacher), str(teacher))
    config.model.head_inputs = ('layer3', 'layer2')
    results = fer_jax.train(config, tmp_path / 'run')
    assert set(results['splits']) == {'validation', 'test'}
    assert evaluate_runs.evaluate(tmp_path / 'run')['splits']['test'] == results['splits']['test']
    records = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    assert np.isfinite(records[-2]['loss'])
    config.data.augment = default.augment('none')
    found = []
    for views, placement in ((0, 'device'), (0, 'stream'), (1, 'device')):
        config.data.placement = placement
        config.phases = (default.phase(rates=default.HEAD_ONLY, optimizer='sgd', learning_rate=0.1, cache_views=views),)
        run = setup.prepare(plain(config))
        program = PhaseProgram(run, run.phases[0])
        state, fixed = program.init_state(0, run.initial())
        loader, step = program.make_loader(state, fixed), program.step_function()
        for index in range(3):
            state = step(state, fixed, loader.device_data, loader.host_batches([index]), 1)
        found.append(jax.device_get((state.trainable, state.sums)))
    for other in found[1:]:
        for one, two in zip(jax.tree.leaves(found[0]), jax.tree.leaves(other), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_shares_and_hints_enter_the_loss_as_they_are_weighted(faces, teacher):
    """The loss of the first step, from its logits, written out."""
    config = student_of(faces, teacher, weight=0.3, temperature=2.0, stages=('layer3',), hints=0.1)
    config.data.augment = default.augment('none')
    config.phases = (default.phase(rates=default.HEAD_ONLY),)
    run = setup.prepare(plain(config))
    variables = run.initial()
    program = PhaseProgram(run, run.phases[0])
    state, fixed = program.init_state(0, variables)
    index, split = run.tasks['primary'].loader.indices(0), run.data.splits['train']
    x = run.network.normalise(split.read(index).astype(np.float32))
    logits = jax.tree.map(np.asarray, run.network.forward(variables, x)[0])
    own = -jax.nn.log_softmax(logits['primary'])[np.arange(16), split.labels[index]]
    p, log_q = split.teacher_outputs['probabilities'][index], jax.nn.log_softmax(logits['primary'] / 2)
    taught = 4 * (p * (np.log(p) - log_q)).sum(1)
    hints = np.square(logits['hints'] - split.teacher_outputs['hints'][index]).mean(1)
    state = program.step_function()(state, fixed, run.loader.device_data, run.loader.host_batches([0]), 1)
    assert state.sums['primary/loss'] == pytest.approx(float(np.mean(0.7 * own + 0.3 * taught + 0.1 * hints)), rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'distil.stages': ('layer9',)}, 'layer9 is no stage of'),
        ({'distil.teachers': ('nowhere',)}, 'nowhere'),
        ({'distil.weight': 0.0}, 'teach nothing'),
        ({'data.annotation': 'action_units'}, "tell classes, not data.annotation='action_units'"),
        ({'data.augment.mixup': 0.2}, 'set data.augment.mixup and cutmix to 0'),
        ({'model.head_inputs': ('layer9',)}, 'layer9 unknown; choose of stem, layer1'),
        ({'model.head_inputs': ('layer3', 'layer3')}, 'layer3 named twice; name each stage once'),
        ({'model.head_inputs': ('layer3',), 'model.head': 'mlp'}, 'are for a linear head'),
    ],
)
def test_what_teaching_cannot_be(faces, teacher, change, message):
    config = student_of(faces, teacher)
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        setup.prepare(plain(config))


@pytest.mark.slow
def test_a_teacher_knows_all_classes(faces, teacher, shared_data, tmp_path):
    for name in ('happy', 'fear'):
        (tmp_path / name).symlink_to(shared_data / 'ck48' / name)
    with pytest.raises(UserError, match=r'knows no fear; it has angry, happy, surprise'):
        setup.prepare(plain(student_of(tmp_path, teacher)))


@pytest.mark.slow
@pytest.mark.parametrize(
    'name',
    [
        'resnet8_small',
        pytest.param('efficientnet_lite0', marks=pytest.mark.campaign),
        pytest.param('inception_resnet_v1', marks=pytest.mark.campaign),
    ],
)
def test_a_head_reads_several_stages(name):
    """Their global averages, one after the other, in the order of the network."""
    shapes = nnx.eval_shape(lambda: registry.create(name, classes=3, rngs=nnx.Rngs(0)))
    chosen = [stage for stage in shapes.stages if stage != 'head'][-3:]
    network = registry.create(name, classes=3, head_inputs=tuple(reversed(chosen)), rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 96, 96, 3))
    outputs, after = [], x
    for stage in list(network.stages)[:-1]:
        after = network.stage(stage, after, train=False, key=None)
        if stage in chosen:
            outputs.append(np.asarray(after).reshape(2, -1, after.shape[-1]).mean(1))
    entering = np.concatenate(outputs, 1)
    expected = entering @ np.asarray(network.head.primary.kernel) + np.asarray(network.head.primary.bias)
    np.testing.assert_allclose(network(x)['primary'], expected, atol=1e-4)
    embedding = models.run(network, x, stop='head')
    np.testing.assert_allclose(embedding, entering, atol=1e-5)
    np.testing.assert_allclose(models.run(network, embedding, start='head')['primary'], expected, atol=1e-4)
