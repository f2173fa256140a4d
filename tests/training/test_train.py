"""Runs from a config to its results, on real faces where a set is needed."""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.cluster.vq
import scipy.special
from flax import nnx
from ml_collections import ConfigDict
from PIL import Image

import fer_jax
from configs import default, repeat
from fer_jax import cross_evaluate, evaluate, export, group_faces, models, pretrained, pseudo_label, report
from fer_jax.data.augmentation.augment import augment
from fer_jax.data.imaging import codec
from fer_jax.data.sources import manifest
from fer_jax.errors import UserError
from fer_jax.evaluation import evaluate_runs, metrics
from fer_jax.inference import tta as inference_tta
from fer_jax.models.network import build
from fer_jax.models.parameters import Flat, unflatten
from fer_jax.reporting import html_report
from fer_jax.runs import checkpoints, restore
from fer_jax.runs import results as run_results
from fer_jax.training import multi_step, nonfinite, setup
from fer_jax.training import run as training_run
from fer_jax.training.train_state import Fixed
from fer_jax.utils.signals import Stopped

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def faces(shared_data, tmp_path_factory):
    """Three classes of CK+48, 90 images."""
    root = tmp_path_factory.mktemp('faces')
    for name in ('happy', 'surprise', 'anger'):
        (root / name).mkdir()
        for path in sorted((shared_data / 'ck48' / name).iterdir())[:30]:
            (root / name / path.name).symlink_to(path)
    return root


FINE_TUNING = {'epochs': 2, 'optimizer': 'sgd', 'learning_rate': 0.02, 'weight_decay': 1e-4, 'ema': 0.9}
FINE_TUNING |= {'schedule': 'plateau', 'patience': 0}


def config_of(faces, **phase) -> ConfigDict:
    config = default.get_config()
    config.model.update({'name': 'resnet18', 'weights': 'scratch', 'image_size': 32, 'channels': 1, 'dropout': 0.3})
    config.data.update({'name': '', 'dir': str(faces), 'batch_size': 16})
    config.data.augment.update({'shift': 0.1, 'rotate': 10.0, 'erase': 0.5})
    config.log_every = 3
    frozen = default.phase(**{'epochs': 1, 'rates': default.HEAD_ONLY, 'learning_rate': 1e-2} | phase)
    config.phases = (frozen, default.phase(**FINE_TUNING))
    return config


def restored(workdir, best=False) -> dict[str, Flat]:
    """The newest or the best model."""
    spec = checkpoints.read_spec(workdir)
    store = checkpoints.Checkpoints(workdir, spec, read_only=True)
    step = store.best_step() if best else store.latest_step()
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    params, stats = store.restore_model(step, *build(spec).abstract(device))
    return {'params': params, 'stats': stats}


def assert_same_model(one: Path, other: Path) -> None:
    one, other = restored(one), restored(other)
    for tree in one:
        assert set(one[tree]) == set(other[tree])
        for path in one[tree]:
            assert np.array_equal(one[tree][path], other[tree][path]), path


@pytest.fixture(scope='module')
def finished(faces, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('runs') / 'whole'
    return workdir, fer_jax.train(config_of(faces), workdir)


def test_a_run_leaves_what_it_promises(finished):
    workdir, results = finished
    assert json.loads((workdir / 'results.json').read_text()) == results
    assert results['selected_on'] == 'validation/accuracy'
    assert results['splits']['test']['n'] == 12 and len(results['phases']) == 2
    part = run_results.read_predictions(workdir / 'predictions.npz', 'test')
    scaled = part['logits'] / results['calibrated']['temperature']
    shares = scipy.special.log_softmax(scaled.astype(np.float64), axis=1)[np.arange(12), part['labels']]
    assert results['calibrated']['splits']['test']['nll'] == pytest.approx(-shares.mean())
    for name in ('curves.png', 'confusion_test.png', 'confusion_validation.png', 'parameters.txt', 'timing.jsonl'):
        assert (workdir / name).stat().st_size > 0
    assert list((workdir / 'tensorboard').iterdir())
    environment = json.loads((workdir / 'environment.json').read_text())
    assert environment['versions']['jax'] == jax.__version__ and len(environment['data']['fingerprint']) == 64
    assert environment['data']['faces'].keys() == {'grey'}  # no log tells how they were cut out
    config = json.loads((workdir / 'config.json').read_text())
    assert config['phases'][1]['optimizer'] == 'sgd'
    records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert {record['split'] for record in records} == {'train', 'validation'}
    assert [record['step'] for record in records if record['split'] == 'validation'] == [5, 9, 13]
    assert not any('second' in key for record in records for key in record)
    table = (workdir / 'parameters.txt').read_text()
    assert 'frozen' in table and 'train x 1' in table


def test_a_run_ends_with_a_page_that_opens_offline(finished, tmp_path, capsys):
    """With the numbers of its results, pictures of all mistakes, and nothing from elsewhere."""
    workdir, results = finished
    page = (workdir / 'report.html').read_text()
    test = results['splits']['test']
    assert f'{100 * test["accuracy"]:.1f}<small> %</small>' in page
    assert page.count('<figure>') == 12 + round(12 * (1 - test['accuracy'])) + 2 * 3
    for heading in (
        'Training',
        'Confusion, test',
        'Classes, test',
        'Can its confidence be believed?',
        'If it may stay silent',
        'What it looked at',
        'Evidence for every class',
        'The data',
        'To repeat it',
        'What this can and cannot do',
    ):
        assert f'<h2>{heading}</h2>' in page
    part = run_results.read_predictions(workdir / 'predictions.npz', 'test')
    ece = metrics.calibration(part['logits'], part['labels'])
    assert f'calibration error {ece["ece"]:.1%}, at the temperature' in page
    assert page.count('<th scope="row"><img') == 3 and 'no file twice, no person in two splits' in page
    assert not re.search(r'(src|href)="(?!data:image/png;base64,)|url\(|@import|<script', page)
    styled = html_report.STYLE.read_text()
    assert all(f'.{name}' in styled for names in re.findall('class="?([a-z ]+)', page) for name in names.split())
    for tag in ('section', 'table', 'figure', 'svg', 'details', 'tr', 'td'):
        assert len(re.findall(f'<{tag}[ >]', page)) == page.count(f'</{tag}>') > 0
    assert report.main([str(workdir)]) == 0 and (workdir / 'report.html').read_text() == page
    assert report.main([str(workdir), str(workdir), '--output', str(tmp_path / 'two.html')]) == 0
    two = (tmp_path / 'two.html').read_text()
    assert two.count('<tr>') == 3 and '<td>1</td></tr>' in two
    assert report.main([str(tmp_path)]) == 2 and 'holds no finished run' in capsys.readouterr().err


def test_a_run_is_repeated_from_its_config(finished):
    workdir, _ = finished
    again = json.loads(repeat.get_config(str(workdir)).to_json())
    assert again == json.loads((workdir / 'config.json').read_text())
    assert isinstance(repeat.get_config(str(workdir)).phases[0], ConfigDict)
    with pytest.raises(ValueError, match='give the folder of a run'):
        repeat.get_config('nowhere')


def test_evaluation_restores_the_selected_checkpoint(finished, capsys):
    workdir, results = finished
    assert evaluate_runs.evaluate(workdir)['splits']['test'] == results['splits']['test']
    assert evaluate.main(['--workdir', str(workdir), '--split', 'validation']) == 0
    assert f'{results["splits"]["validation"]["accuracy"]:.2%}'.replace('%', ' %') in capsys.readouterr().out
    assert evaluate.main(['--workdir', str(workdir), '--split', 'dev']) == 2
    assert evaluate.main(['--workdir', str(workdir / 'absent')]) == 2
    assert 'holds no run' in capsys.readouterr().err
    fitted = results['calibrated']
    again = evaluate_runs.evaluate(workdir)['calibrated']
    assert again['temperature'] == fitted['temperature'] and again['splits']['test'] == fitted['splits']['test']
    assert evaluate_runs.evaluate(workdir, 'validation')['calibrated'] == {}
    assert evaluate.main(['--workdir', str(workdir), '--output', str(workdir / 'new' / 'x.json')]) == 0
    assert json.loads((workdir / 'new' / 'x.json').read_text())['calibrated'] == again
    assert evaluate.main(['--workdir', str(workdir), '--output', str(workdir / 'config.json' / 'x.json')]) == 2


def test_evaluation_on_four_devices_is_that_on_one(finished, tmp_path):
    workdir, results = finished
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_force_host_platform_device_count=4'}
    command = [
        sys.executable,
        '-m',
        'fer_jax.evaluate',
        '--workdir',
        str(workdir),
        '--output',
        str(tmp_path / 'r.json'),
    ]
    subprocess.run(command, check=True, cwd=REPOSITORY, env=environment)
    ours, theirs = (scores['splits']['test'] for scores in (json.loads((tmp_path / 'r.json').read_text()), results))
    assert ours['nll'] == pytest.approx(theirs['nll'], rel=1e-4)
    assert ours['confusion'] == theirs['confusion']


def test_a_loaded_run_answers_as_the_evaluation_does(finished, faces):
    workdir, results = finished
    predictor = fer_jax.load(workdir)
    assert predictor.classes == ('anger', 'happy', 'surprise')
    config = json.loads(config_of(faces).to_json())
    split = setup.prepare(config).data.splits['test']
    probabilities = predictor(split.read(np.arange(len(split.labels))))
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    assert np.mean(probabilities.argmax(-1) == split.labels) == results['splits']['test']['accuracy']
    one = split.read(np.array([0]))[0]
    np.testing.assert_allclose(predictor(one), predictor(one[None, ..., 0]), rtol=1e-6)
    with pytest.raises(ValueError, match='expected uint8 images'):
        predictor(one.astype(np.float32))


@pytest.mark.parametrize('placement', ['device', pytest.param('stream', marks=pytest.mark.slow)])
def test_a_run_that_is_stopped_ends_as_one_that_is_not(finished, faces, tmp_path, placement, monkeypatch):
    """SIGTERM after 2, then 5 (the end of phase 0), then 7 steps; bits, records and results are the same.

    The stopped run takes a step a program, the whole one several.
    """
    whole, results = finished
    config = config_of(faces)
    config.data.placement = placement
    from fer_jax.training import loop

    for stop_at in (2, 5, 7):
        taken = loop.Recorder.stepped

        def stepped(recorder, count, stop_at=stop_at, taken=taken):
            taken(recorder, count)
            if recorder._bar.n == stop_at * 16:
                os.kill(os.getpid(), signal.SIGTERM)

        with monkeypatch.context() as patched:
            patched.setattr(loop.Recorder, 'stepped', stepped)
            patched.setattr(multi_step, 'PATIENCE', 0.0)
            with pytest.raises(Stopped, match=f'stopped by SIGTERM after step {stop_at}'):
                fer_jax.train(config, tmp_path)
    assert fer_jax.train(config, tmp_path)['splits'] == results['splits']
    assert_same_model(whole, tmp_path)
    assert (tmp_path / 'metrics.jsonl').read_bytes() == (whole / 'metrics.jsonl').read_bytes()


def test_what_muon_and_its_adam_remember_is_kept(faces, tmp_path):
    """A run that goes on ends in the bits of one that never stopped."""
    config, muon = config_of(faces), {'optimizer': 'muon', 'schedule': 'constant', 'weight_decay': 0.1}
    for workdir, epochs in ((tmp_path / 'whole', 2), (tmp_path / 'part', 1), (tmp_path / 'part', 2)):
        config.phases = (default.phase(epochs=epochs, **muon),)
        fer_jax.train(config, workdir)
    assert_same_model(tmp_path / 'whole', tmp_path / 'part')


@pytest.mark.parametrize('where', ['prepare', 'feed_for'])
def test_a_signal_before_a_phase_begins_stops_at_once(faces, tmp_path, where, monkeypatch):
    def interrupted(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError('not reached')

    monkeypatch.setattr(*((setup, where) if where == 'prepare' else (training_run.Run, where)), interrupted)
    with pytest.raises(Stopped, match='stopped by SIGTERM, nothing is lost'):
        fer_jax.train(config_of(faces), tmp_path)


def test_a_finished_run_started_again_scores_again_and_trains_no_more(finished, faces):
    workdir, results = finished
    before = (workdir / 'metrics.jsonl').read_bytes()
    assert fer_jax.train(config_of(faces), workdir) == results
    assert (workdir / 'metrics.jsonl').read_bytes() == before


def test_a_finished_run_trains_longer(finished, faces, tmp_path, capsys):
    workdir, results = finished
    shutil.copytree(workdir, tmp_path / 'run')
    config = config_of(faces)
    config.phases[1].epochs = 3
    longer = fer_jax.train(config, tmp_path / 'run')
    said = capsys.readouterr().out
    assert 'changed since this run began: phases[1].epochs: 2.0 -> 3.0' in said and 'resuming at step 13 of 17' in said
    assert [phase['step'] for phase in longer['phases']][0] == results['phases'][0]['step']
    before, after = ((path / 'metrics.jsonl').read_text() for path in (workdir, tmp_path / 'run'))
    assert after.startswith(before) and '"step": 17' in after.removeprefix(before)


def test_other_data_and_other_versions_are_noticed(finished, faces, tmp_path, capsys):
    workdir, _ = finished
    shutil.copytree(workdir, tmp_path / 'run')
    path = tmp_path / 'run' / 'environment.json'
    before = json.loads(path.read_text())
    before['versions']['jax'], before['data']['fingerprint'] = '0.1.0', '0' * 64
    path.write_text(json.dumps(before))
    with pytest.raises(UserError, match='holds a run on other data.*--allow_changes'):
        fer_jax.train(config_of(faces), tmp_path / 'run')
    assert json.loads(path.read_text()) == before
    fer_jax.train(config_of(faces), tmp_path / 'run', allow_changes=True)
    assert 'began with other versions, jax 0.1.0 -> ' in capsys.readouterr().out
    assert json.loads(path.read_text())['earlier'] == [before]


def test_parameters_that_an_update_carries_over_the_largest_number_are_noticed():
    largest = jnp.float32(3e38)
    assert nonfinite.finite({'a': largest, 'b': jnp.ones(3)})
    assert not nonfinite.finite({'a': largest * 10, 'b': jnp.ones(3)})


@pytest.mark.slow
def test_a_phase_whose_scores_stall_ends_early(faces, tmp_path, capsys):
    """At a rate of nothing no evaluation is better than the first; the next phase begins where it would have."""
    config = config_of(faces, epochs=6, learning_rate=1e-9, stop_after=2)
    config.phases[1].epochs = 1
    fer_jax.train(config, tmp_path)
    records = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    steps = {(record['phase'], record['step']) for record in records if record['split'] == 'validation'}
    assert steps == {(0, 5), (0, 9), (0, 13), (1, 29)}
    assert 'phase 0 ends early: 2 evaluations brought no better accuracy' in capsys.readouterr().out
    before = (tmp_path / 'metrics.jsonl').read_bytes()
    fer_jax.train(config, tmp_path)
    assert (tmp_path / 'metrics.jsonl').read_bytes() == before


@pytest.mark.parametrize('mode', ['stop', pytest.param('skip', marks=pytest.mark.slow)])
def test_a_step_that_is_not_finite_ends_the_run_or_is_left_out(faces, tmp_path, mode, capsys):
    """A weight of 3.4e38 in a manifest overflows the loss of the batch that holds it."""
    lines = ['path,label,split,weight']
    for number, path in enumerate(sorted(faces.rglob('*.png'))):
        split, weight = ('train', 'validation')[number % 10 == 0], 3.4e38 if number in (5, 35, 65) else 1
        lines.append(f'{path},{path.parent.name},{split},{weight}')
    (tmp_path / 'faces.csv').write_text('\n'.join(lines))
    config = config_of(faces)
    config.data.update({'dir': '', 'manifest': str(tmp_path / 'faces.csv'), 'batch_size': 27})
    config.data.splits.test = ''
    config.phases = (default.phase(epochs=2, learning_rate=1e-3, clip=1.0),)
    config.update({'on_nonfinite': mode, 'log_every': 1})
    workdir = tmp_path / 'run'
    if mode == 'skip':
        fer_jax.train(config, workdir)
        records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
        assert 1 <= max(record.get('skipped', 0) for record in records) <= 6
        assert all(np.isfinite(record['loss']) for record in records if 'loss' in record)
    else:
        with pytest.raises(UserError, match=r'step \d+ gives numbers that are not finite.*JAX_DEBUG_NANS=1'):
            fer_jax.train(config, workdir)
        (written,) = workdir.glob('nonfinite_step_*.json')
        examples = json.loads(written.read_text())['examples']
        assert len(examples) == 27 and written.with_suffix('.png').stat().st_size > 1000


def test_frozen_parameters_and_statistics_stand_still(faces, tmp_path):
    """Fifty steps of a last stage and head leave every leaf below bit-identical, and move every leaf above."""
    config = config_of(faces)
    config.phases = (
        default.phase(epochs=12, rates=default.train_from('layer4', 'head'), optimizer='adamw', weight_decay=0.1),
    )
    run = setup.prepare(json.loads(config.to_json()))
    params, stats = run.initial()
    before = jax.device_get((params, stats))
    phase = run.phases[0]
    state, fixed = run.enter(phase, 0, params, stats)
    assert {leaf.shape for leaf in jax.tree.leaves(state.opt_state)} == {()} | {
        leaf.shape for leaf in state.trainable.values()
    }
    step = run.step_function(phase)
    for index in range(50):
        state = step(state, fixed, run.feed.resident, run.feed.hosts([index]), 1)
    for path, leaf in (state.trainable | fixed.frozen).items():
        moved = not np.array_equal(leaf, before[0][path])
        assert moved == path.startswith(('layer4', 'head')), path
    for path, leaf in state.batch_stats.items():
        assert (not np.array_equal(leaf, before[1][path])) == path.startswith('layer4'), path


@pytest.mark.slow
@pytest.mark.parametrize(
    ('model', 'last'),
    [
        ('resnet50', ('layer4', 'head')),
        ('vgg16', ('block5', 'fc6', 'fc7', 'head')),
        ('efficientnet_lite0', ('blocks6', 'conv_head', 'head')),
    ],
)
def test_a_step_costs_a_forward_pass_and_the_backward_pass_of_what_trains(faces, model, last):
    """Compiled FLOPs, with clipping and the gradient's norm; the images are at model size and not augmented."""
    size = 64
    config = config_of(faces)
    config.model.update({'name': model, 'image_size': size, 'channels': 3, 'dropout': 0.0})
    config.data.augment = ConfigDict({})
    config.data.batch_size = 8
    config.phases = tuple(
        default.phase(rates=rates, clip=1.0) for rates in (default.HEAD_ONLY, default.train_from(*last), default.ALL)
    )
    run = setup.prepare(json.loads(config.to_json()))
    images = np.zeros((8, size, size, 3), np.uint8)
    batch = {'x': images[None], 'y': np.zeros((1, 8), np.int32), 'weight': np.ones((1, 8), np.float32)}
    params, stats = run.network.params, run.network.batch_stats

    def flops(function, *arguments):
        return jax.jit(function).lower(*arguments).compile().cost_analysis()['flops']

    def up_to(stage, params, stats, x):
        network = nnx.merge(run.network.graphdef, unflatten(params), unflatten(stats), copy=True)
        return models.run(network, run.network.normalise(x.astype(np.float32)), stop=stage)

    costs, expected = [], []
    for phase in run.phases:
        trainable, frozen = phase.partition.split(params)
        create = functools.partial(fer_jax.training.train_state.create, 0, tx=phase.tx, tasks=['primary'])
        state = jax.eval_shape(create, trainable, stats)
        costs.append(flops(run.whole_step(phase), state, Fixed(frozen, {}), {'primary': {}}, {'primary': batch}, 1))
        below = functools.partial(up_to, phase.partition.boundary)
        x = jax.eval_shape(below, params, stats, images)

        def loss(trainable, frozen, stats, x, phase=phase):
            where = {'start': phase.partition.boundary, 'train': phase.partition.stages, 'key': jax.random.key(0)}
            logits, stats, _ = run.network.forward(trainable | frozen, stats, x, **where)
            return -jax.nn.log_softmax(logits['primary'])[:, 0].mean(), stats

        def update(gradients, state, phase=phase):
            updates, opt_state = phase.tx.update(gradients, state.opt_state, state.trainable)
            return optax.apply_updates(state.trainable, updates), opt_state, optax.tree.norm(gradients)

        forward = (
            0 if phase.partition.boundary == next(iter(run.network.stages)) else flops(below, params, stats, images)
        )
        backward = flops(jax.value_and_grad(loss, has_aux=True), trainable, frozen, stats, x)
        expected.append(forward + backward + flops(update, trainable, state))
    assert costs == pytest.approx(expected, rel=0.02)
    alone = flops(functools.partial(up_to, None), params, stats, images)
    assert costs[0] == pytest.approx(alone, rel=0.02)
    assert costs[2] > 2.3 * alone


def test_a_phase_trains_at_a_size_of_its_own(faces):
    """Half the side, a quarter of the FLOPs; the network is evaluated at its own."""
    config = config_of(faces)
    config.model.image_size = 64
    config.phases = tuple(default.phase(rates=default.HEAD_ONLY, image_size=size) for size in (32, 0))
    run = setup.prepare(json.loads(config.to_json()))
    assert [phase.image_size for phase in run.phases] == [32, 64] and run.network.spec.image_size == 64
    costs = []
    for phase in run.phases:
        state, fixed = run.enter(phase, 0, *run.initial())
        lowered = run.whole_step(phase).lower(state, fixed, run.feed.resident, run.feed.hosts([0]), 1)
        costs.append(lowered.compile().cost_analysis()['flops'])
    assert costs[0] == pytest.approx(costs[1] / 4, rel=0.1)
    config.phases[0].image_size = 65
    with pytest.raises(UserError, match=r'phases\[0\].image_size=65; expected 0 .the same., or 8 up to'):
        setup.prepare(json.loads(config.to_json()))


def test_eight_devices_train_as_one(shared_data, tmp_path):
    """Twenty fp32 steps of the last stage and the head, in two processes: JAX fixes its devices when it starts.

    The stem stays frozen: the gradient of a fresh stem is a sum that nearly cancels, and twenty steps blow its rounding
    up to 1e-3 on any two ways of adding. Running statistics are sums of 2,304 products of the parameters, and are held
    to a wider bound, of their own size.
    """
    script = """
import json, sys, jax, numpy as np
from fer_jax.training import setup
config = json.load(open(sys.argv[1])); config['parallel']['devices'] = int(sys.argv[2])
run = setup.prepare(config)
assert run.mesh.size == int(sys.argv[2])
params, stats = run.initial()
state, fixed = run.enter(run.phases[0], 0, params, stats)
step, losses = run.step_function(run.phases[0]), []
for index in range(20):
    state = step(state, fixed, run.feed.resident, run.feed.hosts([index]), 1)
    losses.append(float(state.sums['primary/loss']))
leaves = {path: np.asarray(leaf) for path, leaf in (state.trainable | state.batch_stats).items()}
np.savez(sys.argv[3], losses=np.array(losses), **leaves)
"""
    config = config_of(shared_data / 'ck48')
    config.model.image_size = 64
    config.data.batch_size = 32
    rates = default.train_from('layer4', 'head')
    config.phases = (default.phase(epochs=20, rates=rates, optimizer='sgd', learning_rate=1e-4),)
    (tmp_path / 'config.json').write_text(config.to_json())
    for devices in (1, 8):
        arguments = [
            sys.executable,
            '-c',
            script,
            str(tmp_path / 'config.json'),
            str(devices),
            str(tmp_path / f'{devices}.npz'),
        ]
        subprocess.run(arguments, check=True, cwd=REPOSITORY, env=os.environ | {'JAX_PLATFORMS': 'cpu'})
    with np.load(tmp_path / '1.npz') as one, np.load(tmp_path / '8.npz') as eight:
        for name in one.files:
            statistic = name.endswith(('.mean', '.var'))
            bound = 1e-4 * np.abs(one[name]).max() if statistic else 1e-5
            np.testing.assert_allclose(eight[name], one[name], atol=bound, rtol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize('target', ['probability', 'cross_entropy', 'multi_target'])
def test_votes_are_trained_on(faces, tmp_path, target):
    """A manifest with votes and weights, classes taken in turn: the loss falls, the labels are scored."""
    names = ('happy', 'surprise', 'anger')
    lines = ['path,weight,' + ','.join(f'p_{name}' for name in names)]
    for label, name in enumerate(names):
        for number, path in enumerate(sorted((faces / name).iterdir())):
            votes = [2] * 3
            votes[label] = 6
            lines.append(f'{path},{1 + number % 2},' + ','.join(map(str, votes)))
    (tmp_path / 'votes.csv').write_text('\n'.join(lines))
    config = config_of(faces)
    config.data.update({'dir': '', 'manifest': str(tmp_path / 'votes.csv'), 'target': target, 'balance': 'classes'})
    config.loss.name = 'multi_target' if target == 'multi_target' else 'cross_entropy'
    config.phases = (default.phase(epochs=6, learning_rate=1e-3),)
    results = fer_jax.train(config, tmp_path / 'run')
    assert results['splits']['validation']['n'] == 12 and len(results['classes']) == 3
    records = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
    losses = [record['loss'] for record in records if record['split'] == 'train']
    half = len(losses) // 2
    assert np.mean(losses[half:]) < np.mean(losses[:half])


def test_a_checkpoint_of_another_model_or_class_list_is_refused(finished, faces, tmp_path):
    workdir, _ = finished
    config = config_of(faces)
    config.model.name = 'resnet50'
    with pytest.raises(UserError, match=r'another model: its name is resnet18, this run has resnet50'):
        fer_jax.train(config, workdir)
    (tmp_path / 'faces').mkdir()
    for name in ('happy', 'surprise'):
        (tmp_path / 'faces' / name).symlink_to(faces / name)
    with pytest.raises(UserError, match='its classes is primary: anger, happy, surprise, this run has primary: happy'):
        fer_jax.train(config_of(tmp_path / 'faces'), workdir)


def test_a_run_is_a_source_of_weights(finished, faces, tmp_path):
    workdir, _ = finished
    config = config_of(faces)
    config.model.weights = str(workdir)
    config.phases = (default.phase(epochs=1, rates=default.HEAD_ONLY),)
    fer_jax.train(config, tmp_path)
    ours, source = restored(tmp_path)['params'], restored(workdir, best=True)['params']
    assert np.array_equal(ours['layer3.0.conv1.kernel'], source['layer3.0.conv1.kernel'])
    assert not np.array_equal(ours['head.primary.kernel'], source['head.primary.kernel'])
    config.model.name = 'resnet50'
    with pytest.raises(UserError, match="is a run of resnet18, model.name is 'resnet50'"):
        fer_jax.train(config, tmp_path / 'other')


def test_a_run_on_two_devices_is_a_source_on_one(finished, tmp_path):
    workdir, _ = finished
    script = """
import sys, jax, optax
from pathlib import Path
from fer_jax.distributed import sharding; from fer_jax.runs import restore; from fer_jax.training import train_state
from fer_jax.runs.checkpoints import Checkpoints, read_spec
from fer_jax.training.train_state import Fixed
source, target = map(Path, sys.argv[1:])
weights, everywhere = restore.weights_of_run(source), sharding.replicated(sharding.make_mesh(2))
state = train_state.create(1, dict(weights.params), dict(weights.stats), optax.identity())
store = Checkpoints(target, read_spec(source))
store.save(train_state.to_items(jax.device_put(state, everywhere), Fixed({}, {})), 0.5)
store.close()
"""
    environment = os.environ | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': '--xla_force_host_platform_device_count=2'}
    command = [sys.executable, '-c', script, str(workdir), str(tmp_path)]
    subprocess.run(command, check=True, cwd=REPOSITORY, env=environment)
    ours, theirs = (restore.weights_of_run(folder) for folder in (tmp_path, workdir))
    for path in theirs.params:
        np.testing.assert_array_equal(ours.params[path], theirs.params[path])


def test_a_run_labels_what_it_is_sure_of(finished, faces, tmp_path, capsys):
    """As it would by its own probabilities, calibrated; the labelled rows come first and stay as they are."""
    workdir, results = finished
    labelled = tmp_path / 'labelled.csv'
    image = next((faces / 'happy').iterdir())
    labelled.write_text(f'path,split,label\n{image},validation,happy\n')
    output = tmp_path / 'pseudo.csv'
    command = ['--workdir', str(workdir), '--data', str(faces / 'anger'), '--output', str(output)]
    assert pseudo_label.main([*command, '--labelled', str(labelled), '--threshold', '0.4', '--most', '7']) == 0
    record, table = json.loads(output.with_suffix('.json').read_text()), manifest.read(output)
    assert table.splits[0] == 'validation' and set(table.splits[1:]) <= {'train'} and len(table) > 1
    assert len(table) - 1 == sum(record['kept'].values()) and max(record['kept'].values()) <= 7
    part = run_results.read_predictions(workdir / 'predictions.npz', 'test')
    shares = scipy.special.softmax(part['logits'] / record['temperature'], axis=1)
    kept = shares.max(1) >= 0.4
    assert record['test']['n'] == kept.sum() and record['step'] == results['step']
    assert record['test']['precision'] == np.mean((shares.argmax(1) == part['labels'])[kept])
    predictor = fer_jax.load(workdir)
    name = str(table.ids[1])
    face = codec.decode(Path(name).read_bytes(), 32, 3, name)
    assert table.classes[table.labels[1]] == predictor.classes[predictor(face[None]).argmax()]
    assert 'are right' in capsys.readouterr().out
    assert pseudo_label.main([*command, '--threshold', '1.5']) == 2
    assert pseudo_label.main(['--workdir', str(tmp_path), *command[2:]]) == 2
    assert 'holds no finished run' in capsys.readouterr().err


def test_labels_of_its_own_making_neither_select_nor_test(finished, faces, tmp_path, capsys):
    """Labelled images keep the splits in which the run had them; what is scored or labelled gets no second label."""
    workdir, _ = finished
    unlabelled, output = tmp_path / 'unlabelled', tmp_path / 'new' / 'folder' / 'pseudo.csv'
    unlabelled.mkdir()
    for at, path in enumerate(sorted(faces.rglob('*.png'))):
        (unlabelled / f'copy {at}.png').write_bytes(path.read_bytes())
        if at % 3 == 0:
            Image.fromarray(np.asarray(Image.open(path)) ^ np.uint8(1)).save(unlabelled / f'new {at}.png')
    command = ['--workdir', str(workdir), '--data', str(unlabelled), '--threshold', '0']
    assert pseudo_label.main([*command, '--output', str(output)]) == 0
    record, table = json.loads(output.with_suffix('.json').read_text()), manifest.read(output)
    assert record['left_out'] == {'of validation or test': 24, 'labelled already': 66} and record['images'] == 30
    splits = setup.prepare(json.loads((workdir / 'config.json').read_text())).data.splits
    for role, split in splits.items():
        real = {(faces / name).resolve() for name in split.ids}
        listed = {Path(name) for name in table.ids[table.splits == role]}
        assert real == listed if role != 'train' else real < listed
        assert all('new ' in path.name for path in listed - real)
    assert len(table) == 90 + 30 and set(record['validation']) == set(record['test'])
    labelled = tmp_path / 'labelled.csv'
    labelled.write_text(f'path,label\n{unlabelled / "new 0.png"},anger\n')
    given = [*command, '--labelled', str(labelled)]
    assert pseudo_label.main([*given, '--output', str(tmp_path / 'x.csv')]) == 2
    assert 'does not say which images select' in capsys.readouterr().err
    labelled.write_text(f'path,label,split\n{unlabelled / "new 0.png"},anger,validation\n')
    assert pseudo_label.main([*given, '--output', str(labelled)]) == 2
    assert pseudo_label.main([*given, '--output', str(tmp_path / 'x.json')]) == 2
    assert pseudo_label.main([*given, '--output', str(tmp_path / 'x.csv')]) == 0
    record = json.loads((tmp_path / 'x.json').read_text())
    assert record['left_out'] == {'of validation or test': 24, 'labelled already': 1} and record['images'] == 95


def test_faces_are_grouped_by_what_a_run_makes_of_them(finished, faces, tmp_path, capsys, monkeypatch):
    """Every image in one group, nearest to the mean of its own; the largest group first; the same again."""
    workdir, _ = finished
    command = ['--workdir', str(workdir), '--data', str(faces), '--groups', '4']
    assert group_faces.main([*command, '--output', str(tmp_path / 'one')]) == 0
    assert group_faces.main([*command, '--output', str(tmp_path / 'two')]) == 0
    table = manifest.read(tmp_path / 'one' / 'groups.csv')
    assert (tmp_path / 'two' / 'groups.csv').read_text() == (tmp_path / 'one' / 'groups.csv').read_text()
    sizes = np.bincount(table.labels, minlength=4)
    assert sizes.sum() == 90 and table.classes == tuple(f'group-0{number}' for number in range(4))
    assert list(sizes) == sorted(sizes, reverse=True)
    spec, model = checkpoints.read_spec(workdir), restored(workdir, best=True)
    network = build(spec)
    looks = np.stack([codec.decode(Path(name).read_bytes(), 32, 1, '') for name in table.ids])
    entered = network.forward(model['params'], model['stats'], network.normalise(looks.astype(np.float32)))[2]
    rows = np.asarray(entered) / np.linalg.norm(entered, axis=1, keepdims=True)
    means = np.stack([rows[table.labels == number].mean(0) for number in range(4)])
    nearest = np.linalg.norm(rows[:, None] - means, axis=-1).argmin(1)
    assert np.mean(nearest == table.labels) > 0.95
    assert all((tmp_path / 'one' / f'{name}.png').stat().st_size > 1000 for name in table.classes)
    assert group_faces.main([*command[:4], '--groups', '91', '--output', str(tmp_path)]) == 2
    assert '--groups=91' in capsys.readouterr().err
    twice = np.repeat(np.eye(2, dtype=np.float32), 9, axis=0)
    with pytest.raises(UserError, match='--groups=3: a group stays empty'):
        group_faces.grouped(twice, 3, 0)

    def empty(*_, **__):
        raise scipy.cluster.vq.ClusterError('One of the clusters is empty')

    monkeypatch.setattr(scipy.cluster.vq, 'kmeans2', empty)
    with pytest.raises(UserError, match='--groups=2: a group stays empty .*give a smaller number'):
        group_faces.grouped(twice, 2, 0)


def test_a_run_is_scored_on_other_sets(finished, faces, tmp_path, capsys):
    """On its own set as its test split was; on one of other names as a count of its predictions says."""
    workdir, results = finished
    other = tmp_path / 'other'
    for name, ours in (('Anger', 'anger'), ('joy', 'happy'), ('fear', None), ('surprised', 'surprise')):
        (other / name).mkdir(parents=True)
        chosen = sorted((faces / (ours or 'happy')).iterdir())
        for path in chosen if ours else chosen[:4]:
            pixels = np.asarray(Image.open(path)) ^ np.uint8(ours is not None)  # other bytes
            Image.fromarray(pixels).save(other / name / path.name)
    output = tmp_path / 'out' / 'matrix.jsonl'
    command = ['--workdir', str(workdir), '--data', str(faces), '--data', str(other), '--output', str(output)]
    assert cross_evaluate.main(command) == 0
    own, foreign = (json.loads(line) for line in output.read_text().splitlines())
    assert (own['n'], own['accuracy']) == (12, results['splits']['test']['accuracy'])
    assert own['left_out'] == {'trained on': 78, 'of other classes': 0}
    assert (foreign['n'], foreign['left_out']['of other classes']) == (90, 4)
    predictor, right = fer_jax.load(workdir), 0
    for name, ours in (('Anger', 'anger'), ('joy', 'happy'), ('surprised', 'surprise')):
        found = [codec.decode(path.read_bytes(), 32, 1, '') for path in (other / name).iterdir()]
        right += sum(predictor.classes[at] == ours for at in predictor(np.stack(found)).argmax(1))
    assert foreign['accuracy'] == right / 90 and foreign['classes'] == ['angry', 'happy', 'surprise']
    assert output.with_suffix('.png').stat().st_size > 1000
    found = evaluate_runs.evaluate(workdir, dataset=str(other))
    assert found['splits']['other']['accuracy'] == right / 90 and found['left_out']['of other classes'] == 4
    assert evaluate.main(['--workdir', str(workdir), '--data', str(other), '--tta', 'flip']) == 0
    assert '4 of other classes' in capsys.readouterr().out
    assert evaluate.main(['--workdir', str(workdir), '--tta', 'many']) == 2
    written = output.read_text()
    assert cross_evaluate.main(command) == 0 and output.read_text() == written
    assert (
        cross_evaluate.main([*command, '--data', 'nowhere']) == 2 and "'nowhere' is unknown" in capsys.readouterr().err
    )
    assert cross_evaluate.main(['--workdir', str(workdir), '--data', f'{faces}:dev', '--output', str(output)]) == 2
    assert "no split 'dev'; there are all" in capsys.readouterr().err


@pytest.mark.parametrize('tta', ['flip', 'tencrop', '3'])
def test_views_at_test_time_are_averaged(finished, faces, tta):
    """Probabilities, against a loop over the views made by hand."""
    workdir, results = finished
    part = run_results.read_predictions(workdir / 'predictions.npz', 'test')
    looks = np.stack([codec.decode((faces / name).read_bytes(), 32, 1, name) for name in part['ids']])
    spec, model = checkpoints.read_spec(workdir), restored(workdir, best=True)
    network = build(spec)
    places = [(0, 0)]
    large = looks.astype(np.float32)
    if tta == 'tencrop':
        large = np.asarray(jax.image.resize(large, (12, 37, 37, 1), 'linear', antialias=True))
        places = [(0, 0), (0, 5), (5, 0), (5, 5), (2, 2)]
    seen = []
    for top, left in places:
        view = large[:, top : top + 32, left : left + 32]
        seen += [view, view[:, :, ::-1]]
    if tta == '3':
        seen = []
        for number in range(3):
            keys = [jax.random.fold_in(jax.random.key(number), at) for at in range(len(looks))]
            one_by_one = [
                augment(looks[at : at + 1], key[None], 32, inference_tta.RANDOM_VIEW) for at, key in enumerate(keys)
            ]
            seen.append(np.concatenate(one_by_one))
    shares = []
    for one in seen:
        logits = network.forward(model['params'], model['stats'], network.normalise(one))[0]['primary']
        shares.append(jax.nn.softmax(logits))
    expected = np.mean(shares, 0)
    np.testing.assert_allclose(fer_jax.load(workdir, tta=tta)(looks), expected, atol=2e-3 if tta == 'tencrop' else 1e-5)
    scored = evaluate_runs.evaluate(workdir, tta=tta)['splits']['test']
    assert scored['accuracy'] == np.mean(expected.argmax(1) == part['labels'])


def test_runs_and_peers_are_compared_on_the_same_images(finished, tmp_path, capsys):
    """Twice the same run, as of two seeds, and its own probabilities as somebody else's."""
    workdir, results = finished
    for seed in (0, 1):
        shutil.copytree(workdir, tmp_path / 'runs' / f'seed-{seed}')
    config = json.loads((workdir / 'config.json').read_text())
    (tmp_path / 'runs' / 'seed-1' / 'config.json').write_text(json.dumps({**config, 'seed': 1}))
    part = run_results.read_predictions(workdir / 'predictions.npz', 'test')
    shares = scipy.special.softmax(part['logits'].astype(np.float64), 1)
    rows = [','.join([name, *map(str, row)]) for name, row in zip(part['ids'], shares.tolist(), strict=True)]
    peer, output = tmp_path / 'peer.csv', tmp_path / 'together.json'
    peer.write_text('\n'.join([','.join(['id', *results['classes']]), *rows]) + '\n')
    command = ['--workdir', str(tmp_path / 'runs'), '--predictions', str(peer), '--output', str(output)]
    assert evaluate.main(command) == 0
    assert 'test, mean of the seeds' in capsys.readouterr().out
    found, expected = json.loads(output.read_text()), results['splits']['test']
    assert list(found['splits']['test']) == ['seed-0', 'seed-1', 'peer', 'ensemble']
    for one in found['splits']['test'].values():
        assert one['confusion'] == expected['confusion']
    assert found['splits']['test']['ensemble']['nll'] == pytest.approx(expected['nll'])
    assert found['splits']['test']['peer']['p'] == 1.0
    assert found['seeds']['test']['accuracy'] == expected['accuracy']
    assert found['runs']['seed-0']['splits']['test'] == expected


@pytest.mark.slow
def test_a_larger_network_starts_from_a_smaller_one(finished, faces, tmp_path, capsys):
    """A ResNet-18 has the stem of a ResNet-34 and the first blocks of its stages; of a ResNet-50 far less."""
    workdir, _ = finished
    config = config_of(faces)
    config.model.update({'name': 'resnet34', 'weights': str(workdir), 'partial': True})
    run = setup.prepare(config.to_dict())
    (params, stats), source = run.initial(), restored(workdir, best=True)
    taken = run.weights.metadata['taken'].split(', ')
    assert set(taken) == {*source['params'], *source['stats']} - {'head.primary.kernel', 'head.primary.bias'}
    for path in taken:
        np.testing.assert_array_equal((params | stats)[path], (source['params'] | source['stats'])[path])
    assert '(resnet18; stem 3 of 3, layer1 12 of 18, layer2 15 of 27, ' in run.describe()
    assert 'head 0 of 2)' in run.describe()
    config.model.name = 'resnet50'
    assert 'stem 3 of 3' in setup.prepare(config.to_dict()).describe()
    config.model.name = 'vgg11'
    with pytest.raises(UserError, match='model.partial: nothing of resnet18 fits vgg11'):
        setup.prepare(config.to_dict())


def test_a_run_goes_back_to_torchvision(finished, tmp_path, capsys):
    """As float32 tensors that torchvision's network takes strictly; in again it is the same to the bit."""
    workdir, _ = finished
    output = tmp_path / 'resnet18.safetensors'
    command = ['--workdir', str(workdir), '--output', str(output)]
    assert export.main([*command, '--format', 'torchvision']) == 0
    assert 'classes  anger, happy, surprise\nimages   grey, 32 px' in capsys.readouterr().out
    again = pretrained.convert_file(output, 'resnet18', source='x', licence='none')
    source = restored(workdir, best=True)
    for path, leaf in (source['params'] | source['stats']).items():
        np.testing.assert_array_equal((again.params | again.stats)[path], leaf)
    assert export.main([*command, '--format', 'keras']) == 2
    said = capsys.readouterr().err
    assert 'keras is not a form of resnet18; choose onnx, stablehlo, torchvision, safetensors' in said
    assert export.main([*command, '--format', 'safetensors']) == 0
    own = pretrained.load(output, 'resnet18')
    assert own.preprocessing.size == 32 and own.metadata['classes'] == '3'
    assert export.main(['--workdir', str(tmp_path), '--output', str(output), '--format', 'safetensors']) == 2
    (tmp_path / 'there.safetensors').mkdir()
    for wrong, said in (('there.safetensors', 'cannot be written'), ('README', 'has no ending; give a file such as')):
        command[-1] = str(tmp_path / wrong)
        assert export.main([*command, '--format', 'torchvision']) == 2
        assert said in capsys.readouterr().err


def test_the_best_step_outlives_a_score_that_is_not_a_number(finished, tmp_path):
    workdir, _ = finished
    spec = checkpoints.read_spec(workdir)
    store = checkpoints.Checkpoints(tmp_path, spec)
    params = {'a': np.ones(2, np.float32)}
    for step, value in ((1, 0.5), (2, 0.9), (3, float('nan')), (4, 0.7), (5, None)):
        state = fer_jax.training.train_state.create(step, params, {}, optax.identity())
        store.save(fer_jax.training.train_state.to_items(state, Fixed({}, {})), value)
        store.wait()
        assert store.latest_step() == step
    assert store.best_step() == 2
    store.close()
    assert checkpoints.Checkpoints(tmp_path, spec).best_step() == 2
