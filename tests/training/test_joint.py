"""Several tasks in one step and in one run, against the tasks one by one."""

import dataclasses
import functools
import hashlib
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fer_jax
from configs import default
from fer_jax.data import dataset
from fer_jax.data import tasks as data_tasks
from fer_jax.data.augmentation.augment import Augment
from fer_jax.data.imaging import codec
from fer_jax.data.sources import folder, manifest
from fer_jax.data.tables import class_names
from fer_jax.data.tasks import PRIMARY
from fer_jax.errors import UserError
from fer_jax.evaluation import evaluate_runs
from fer_jax.runs import model_file
from fer_jax.runs import results as run_results
from fer_jax.training import losses, optimizers, setup, train_state
from fer_jax.training.freezing import Partition
from fer_jax.training.objectives import Objective
from fer_jax.training.phase_program import PhaseProgram
from fer_jax.training.phases import Phase
from fer_jax.training.train_state import FrozenState
from fer_jax.training.train_step import StepProgram, train_step
from tests.data.images import link_ck48

RNG = np.random.default_rng(0)
SIZE, RATE = 6, 0.5
KERNELS = {name: RNG.normal(size=(SIZE * SIZE, 3)).astype(np.float32) for name in (PRIMARY, 'other')}
BATCHES = {
    task: {
        'x': RNG.integers(0, 256, (count, SIZE, SIZE, 1), np.uint8),
        'y': RNG.integers(0, 3, count).astype(np.int32),
        'weight': np.ones(count, np.float32),
    }
    for task, count in ((PRIMARY, 24), ('other', 8), ('unlabelled', 16))
}


def forward(variables, x, **_):
    rows, (params, stats) = x.reshape(len(x), -1), variables
    return {name: rows @ kernel for name, kernel in params.items()}, stats, rows @ params[PRIMARY]


NETWORK = SimpleNamespace(
    spec=SimpleNamespace(image_size=SIZE, classes=dict.fromkeys(KERNELS, tuple('abc'))),
    forward=forward,
    normalise=lambda x: x / 255,
)


def stepped(objectives, *, accumulate=1):
    """What one step of SGD at rate 0.5 changes, as a gradient, and its sums."""
    tx = optimizers.make(
        'sgd',
        schedule=lambda _: RATE,
        rates=dict.fromkeys(KERNELS, 1.0),
        decay_mask=dict.fromkeys(KERNELS, True),
        momentum=0.0,
    )
    partition = Partition({}, frozenset(), '')
    phase = Phase(0, 0, 10, 1.0, partition, tx, lambda _: RATE, Augment(), SIZE, accumulate=accumulate)
    state = train_state.create(0, jax.tree.map(jnp.asarray, KERNELS), {}, tx, tasks=objectives)
    step = functools.partial(train_step, program=StepProgram(NETWORK, phase, objectives, seed=0, guard=0))
    after = jax.jit(step)(
        state, FrozenState({}, {}), dict.fromkeys(objectives, {}), {name: BATCHES[name] for name in objectives}
    )
    gradient = {name: (KERNELS[name] - np.asarray(leaf)) / RATE for name, leaf in after.trainable.items()}
    return gradient, jax.device_get(after.sums)


def softmax_regression(task, head, weights=(1.0, 1.0, 1.0)):
    """(loss, gradient of the head's kernel) in float64."""
    x, y = BATCHES[task]['x'].reshape(len(BATCHES[task]['y']), -1) / 255, BATCHES[task]['y']
    odds = np.exp(x @ KERNELS[head].astype(np.float64))
    shares = odds / odds.sum(1, keepdims=True)
    weight = np.array(weights)[y]
    loss = -(weight * np.log(shares[np.arange(len(y)), y])).sum() / weight.sum()
    return loss, x.T @ (weight[:, None] * (shares - np.eye(3)[y])) / weight.sum()


@pytest.mark.parametrize('accumulate', [1, 4])
@pytest.mark.parametrize('head', ['other', PRIMARY])
def test_a_step_minimises_the_weighted_sum_of_the_tasks(head, accumulate):
    """Of means over batches of different sizes and class weights, each its own; at its own head or at a shared one."""
    weights = (0.5, 1.0, 3.0)
    other = Objective(losses.make('cross_entropy', class_weights=weights), head=head, weight=0.3)
    objectives = {PRIMARY: Objective(losses.make('cross_entropy')), 'other': other}
    gradient, sums = stepped(objectives, accumulate=accumulate)
    ours, theirs = softmax_regression(PRIMARY, PRIMARY), softmax_regression('other', head, weights)
    expected = {PRIMARY: ours[1], 'other': np.zeros_like(ours[1])}
    expected[head] = expected[head] + 0.3 * theirs[1]
    for name in KERNELS:
        np.testing.assert_allclose(gradient[name], expected[name], atol=1e-5)
    assert sums['primary/loss'] == pytest.approx(ours[0], rel=1e-5)
    assert sums['other/loss'] == pytest.approx(theirs[0], rel=1e-5)
    assert (sums['primary/examples'], sums['other/examples'], sums['steps']) == (24, 8, 1)


def test_images_without_labels_pull_the_statistics_together():
    """The gradient of the CORAL distance, by finite differences of covariances that NumPy computes."""
    objectives = {PRIMARY: Objective(losses.make('cross_entropy')), 'unlabelled': Objective(None, align=0.7)}
    gradient, sums = stepped(objectives)

    def apart(kernel):
        rows = [BATCHES[name]['x'].reshape(len(BATCHES[name]['y']), -1) / 255 @ kernel for name in objectives]
        return np.square(np.cov(rows[0].T) - np.cov(rows[1].T)).sum() / (4 * 3**2)

    kernel = KERNELS[PRIMARY].astype(np.float64)
    slopes = np.empty_like(kernel)
    for at in np.ndindex(kernel.shape):
        nudge = np.zeros_like(kernel)
        nudge[at] = 1e-5
        slopes[at] = (apart(kernel + nudge) - apart(kernel - nudge)) / 2e-5
    assert np.abs(slopes).max() > 1e-3
    np.testing.assert_allclose(gradient[PRIMARY], softmax_regression(PRIMARY, PRIMARY)[1] + 0.7 * slopes, atol=1e-5)
    assert sums['unlabelled/loss'] == pytest.approx(apart(kernel), rel=1e-4)


@pytest.fixture(scope='module')
def faces(shared_data, tmp_path_factory):
    """Two folders of CK+48: three classes, and two that overlap with them under other names."""
    root = tmp_path_factory.mktemp('joint')
    chosen = (('ours', ('happy', 'surprise', 'anger')), ('theirs', ('happy', 'contempt')))
    for whose, names in chosen:
        link_ck48(shared_data, root / whose, names, 20)
    return root


def config_of(faces):
    config = default.get_config()
    config.model.update({'name': 'resnet8_small', 'weights': 'scratch', 'image_size': 32, 'channels': 1})
    config.data.update({'name': '', 'dir': str(faces / 'ours'), 'batch_size': 16})
    config.joint.theirs = default.task(0.5, head='primary', name='', dir=str(faces / 'theirs'), batch_size=8)
    config.joint.theirs.data.rename = (('contempt', 'angry'),)
    config.joint.smiles = default.task(0.25, name='', dir=str(faces / 'theirs'), batch_size=8)
    config.joint.faces = default.task(name='', dir=str(faces / 'ours'), label='none', align=0.1, batch_size=16)
    config.phases = (default.phase(epochs=1, learning_rate=1e-3),)
    return config


@pytest.mark.slow
def test_three_tasks_beside_the_primary_one(faces, tmp_path, capsys):
    results = fer_jax.train(config_of(faces), tmp_path / 'run')
    assert set(results['splits']) == {
        f'{role}{task}' for role in ('validation', 'test') for task in ('', '/theirs', '/smiles')
    }
    assert list(results['splits']['test/smiles']['per_class']) == ['contempt', 'happy']
    assert results['splits']['test/theirs']['per_class']['surprise']['n'] == 0
    spec = model_file.read_spec(tmp_path / 'run')
    assert spec.classes == {PRIMARY: ('angry', 'happy', 'surprise'), 'smiles': ('contempt', 'happy')}
    records = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    assert {'loss', 'theirs/loss', 'smiles/accuracy', 'faces/loss'} <= set(records[-2])
    assert 'faces/accuracy' not in records[-2] and 'theirs/macro_f1' in records[-1]
    part = run_results.read_predictions(tmp_path / 'run' / 'predictions.npz', 'test/smiles')
    assert np.mean(part['logits'].argmax(1) == part['labels']) == results['splits']['test/smiles']['accuracy']
    assert evaluate_runs.evaluate(tmp_path / 'run', 'test')['splits'] == {
        name: one for name, one in results['splits'].items() if name.startswith('test')
    }
    assert (tmp_path / 'run' / 'confusion_test_smiles.png').stat().st_size > 0
    assert 'beside it theirs' in capsys.readouterr().out


def test_nothing_trains_on_what_the_primary_task_is_scored_on(faces):
    data = data_tasks.load_tasks(json.loads(config_of(faces).to_json()), image_size=32, channels=1)
    scored = {row.tobytes() for role in ('validation', 'test') for row in data[PRIMARY].splits[role].digests}
    for task in ('theirs', 'smiles', 'faces'):
        assert not scored & {row.tobytes() for row in data[task].splits['train'].digests}
    everything = [path.resolve().read_bytes() for path in (faces / 'ours').rglob('*.png')]
    left = [image for image in everything if hashlib.sha256(image).digest() not in scored]
    assert len(data['faces'].splits['train'].ids) == len(left) < len(everything) == 60
    note = f'left out: {60 - len(left)} of 60 training images, on which the primary task is selected or tested'
    assert note in data['faces'].notes


def test_no_joint_task_is_scored_on_what_another_trains_on(faces):
    """Their split is another one, and some of their images are ours; what is left keeps its images and its labels."""
    config = config_of(faces)
    config.joint.theirs.data.split_seed = 1
    data = data_tasks.load_tasks(json.loads(config.to_json()), image_size=32, channels=1)
    whole = dataset.load_dataset(
        dir=str(faces / 'theirs'),
        splits={'validation': 'validation', 'test': 'test'},
        image_size=32,
        channels=1,
        root=faces,
        rename=(('contempt', 'angry'),),
        classes=data[PRIMARY].classes,
        split_seed=1,
    )
    trained = {row.tobytes() for name in (PRIMARY, 'smiles') for row in data[name].splits['train'].digests}
    for role, split in whole.splits.items():
        fresh = np.array([row.tobytes() not in trained for row in split.digests])
        assert data['theirs'].left_out.get(role, 0) == (~fresh).sum()
        if role in data['theirs'].splits:
            ours = data['theirs'].splits[role]
            assert list(ours.ids) == list(split.ids[fresh]) and list(ours.labels) == list(split.labels[fresh])
            np.testing.assert_array_equal(ours.read(np.arange(len(ours.ids))), split.read(np.flatnonzero(fresh)))
    assert data['theirs'].left_out and not data[PRIMARY].left_out
    run = setup.prepare(json.loads(config.to_json()))
    assert 'left out, as another task trains on them: ' in run.describe()


@pytest.mark.slow
def test_each_task_has_its_own_order_and_the_frozen_part_is_cached(faces):
    """Steps from the feature cache equal those from images, of all tasks together."""
    config = config_of(faces)
    config.data.augment = default.augment('none')
    found = []
    for views in (0, 1):
        config.phases = (default.phase(rates=default.HEAD_ONLY, optimizer='sgd', learning_rate=0.1, cache_views=views),)
        run = setup.prepare(json.loads(config.to_json()))
        phase = run.phases[0]
        program = PhaseProgram(run, phase)
        state, fixed = program.init_state(0, run.initial())
        loader, step = program.make_loader(state, fixed), program.step_function()
        for index in range(3):
            state = step(state, fixed, loader.device_data, loader.host_batches([index]), 1)
        found.append(jax.device_get((state.trainable, state.sums)))
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    theirs, smiles = (run.tasks[name].loader.indices(0) for name in ('theirs', 'smiles'))
    assert list(theirs) != list(smiles)


@pytest.mark.slow
def test_levels_are_learnt_beside_expressions(faces, tmp_path, monkeypatch):
    """The mean of an image's pixels is easily told."""

    def open_table(**_):
        table = folder.scan(faces / 'ours')
        pixels = [codec.decode(data, 32, 1, '') for data in table.fetch(np.arange(len(table)))]
        means = np.mean(pixels, (1, 2, 3), dtype=np.float64)
        levels = np.stack([(means - means.mean()) / means.std(), np.full(len(table), np.nan)], 1).astype(np.float32)
        levels[::2, 1] = 0.3
        return dataclasses.replace(table, targets={'light': levels}, columns={'light': ('bright', 'even')})

    monkeypatch.setattr(dataset, 'open_table', open_table)
    config = config_of(faces)
    config.data.augment = default.augment('none')
    config.joint = {'light': default.task(name='', dir='x', annotation='light', batch_size=16)}
    config.joint.light.loss.name = 'squared_error'
    config.phases = (default.phase(epochs=16, learning_rate=2e-3),)
    results = fer_jax.train(config, tmp_path / 'run')
    found = results['splits']['test/light']
    assert found['per_level']['bright']['concordance'] > 0.5 and found['per_level']['even']['n'] < found['n']
    part = run_results.read_predictions(tmp_path / 'run' / 'predictions.npz', 'test/light')
    error = part['logits'][:, 0] - part['labels'][:, 0]
    assert found['per_level']['bright']['rmse'] == pytest.approx(np.sqrt(np.mean(np.square(error))), rel=1e-5)
    records = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    assert 'light/concordance' in records[-1] and 'light/loss' in records[-2] and 'light/accuracy' not in records[-2]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'data.rename': ()}, r'joint.theirs: theirs has the classes contempt, which are not among angry, happy'),
        ({'data.rename': (('smirk', 'angry'),)}, r'joint.theirs: data.rename: smirk is no class'),
        ({'data.label': 'none'}, r'joint.theirs: without labels there is only align'),
        ({'align': 0.1, 'data.batch_size': 1}, r'joint.theirs.data.batch_size=1 in 1 microbatches: align compares'),
        ({'data.batch_size': 999}, r'joint.theirs: data.batch_size=999 is larger'),
        ({'loss.name': 'binary_cross_entropy'}, r'joint.theirs: loss.name'),
    ],
)
def test_what_a_joint_task_cannot_be(faces, change, message):
    config = config_of(faces)
    config.joint.theirs.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        setup.prepare(json.loads(config.to_json()))


def test_classes_that_get_one_name_become_one(tmp_path, shared_data):
    image = next((shared_data / 'ck48' / 'happy').iterdir())
    path = tmp_path / 'votes.csv'
    path.write_text(f'path,p_neutral,p_contempt,p_happy\n{image},0.1,0.3,0.6\n')
    table = manifest.read_manifest(path)
    merged = class_names.renamed(table, [('contempt', 'neutral')])
    assert merged.classes == ('neutral', 'happy') and merged.targets['votes'].tolist() == [
        [pytest.approx(0.4), pytest.approx(0.6)]
    ]
    assert merged.classes[merged.labels[0]] == 'happy'
