"""The feature cache: the same training, from what was computed once; and nothing stale."""

import dataclasses
import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import fer_jax
from configs import default
from fer_jax.data.augmentation.augment import Augment, augment
from fer_jax.data.augmentation.colour import recolour
from fer_jax.data.augmentation.geometry import resize
from fer_jax.data.imaging.codec import decode
from fer_jax.data.loading.batch_loop import map_batches
from fer_jax.data.loading.loader import assemble_batch
from fer_jax.errors import UserError
from fer_jax.feature_cache import extract as feature_extract
from fer_jax.feature_cache import loader as feature_loader
from fer_jax.feature_cache import store as feature_store
from fer_jax.feature_cache.recipe import FeatureSpec
from fer_jax.models.kernels import choose
from fer_jax.models.layers import adaptive_average_pool
from fer_jax.models.network import Network
from fer_jax.models.parameters import Variables
from fer_jax.models.preprocessing import Preprocessing
from fer_jax.training import setup
from fer_jax.training.phase_program import PhaseProgram
from tests.data.images import link_ck48

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Compiled programs stay where they are; features get a folder of their own."""
    monkeypatch.setattr(feature_store.cache, 'root', lambda: tmp_path / 'cache')
    return tmp_path / 'cache' / 'features'


@pytest.fixture(scope='module')
def faces(shared_data, tmp_path_factory):
    """Three classes of CK+48, 60 images."""
    return link_ck48(shared_data, tmp_path_factory.mktemp('faces'), ('happy', 'surprise', 'anger'), 20)


def config_of(faces, model='resnet8_small', rates=default.HEAD_ONLY, **phase):
    config = default.get_config()
    config.model.update({'name': model, 'weights': 'scratch', 'image_size': 32, 'channels': 1})
    config.data.update({'name': '', 'dir': str(faces), 'batch_size': 16, 'augment': default.augment('none')})
    config.log_every = 1
    config.phases = (default.phase(**{'epochs': 2, 'rates': rates, 'learning_rate': 1e-2} | phase),)
    return config


def prepared(config):
    return setup.prepare(json.loads(config.to_json()))


def losses_of(config, steps):
    run = prepared(config)
    phase = run.phases[0]
    program = PhaseProgram(run, phase)
    state, fixed = program.init_state(0, run.initial())
    loader, step = program.make_loader(state, fixed), program.step_function()
    losses = []
    for number in range(steps):
        state = step(state, fixed, loader.device_data, loader.host_batches([number]), 1)
        losses.append(float(state.sums['primary/loss']))
    return losses


@pytest.mark.parametrize(
    ('model', 'rates'),
    [
        ('resnet8_small', default.HEAD_ONLY),
        ('resnet8_small', default.train_from('layer3', 'head')),
        pytest.param('efficientnet_lite0', default.train_from('conv_head', 'head'), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize('place', ['device', 'disk'])
def test_training_from_the_cache_gives_the_losses_of_training_without(faces, model, rates, place, monkeypatch):
    """Thirty fp32 steps over plain images, the features on the device or read from the file."""
    steps = 30 if model == 'resnet8_small' else 10
    plain = losses_of(config_of(faces, model, rates), steps)
    if place == 'disk':
        monkeypatch.setattr(feature_loader, 'keeps_on_device', lambda size, mesh: False)
    cached = losses_of(config_of(faces, model, rates, cache_views=1), steps)
    np.testing.assert_allclose(np.diff(cached), np.diff(plain), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_run_from_the_cache_scores_as_one_without_and_the_next_run_computes_nothing(
    faces, tmp_path, own_cache, monkeypatch
):
    whole = fer_jax.train(config_of(faces, epochs=3), tmp_path / 'plain')
    results = fer_jax.train(config_of(faces, epochs=3, cache_views=1), tmp_path / 'cached')
    for role, scores in results['splits'].items():
        assert scores['nll'] == pytest.approx(whole['splits'][role]['nll'], rel=1e-4)
        assert scores['confusion'] == whole['splits'][role]['confusion']
    assert len(list(own_cache.glob('*.bin'))) == len(list(own_cache.glob('*.json'))) == 2  # train and validation
    monkeypatch.setattr(feature_store, '_fill', None)
    again = fer_jax.train(config_of(faces, epochs=3, cache_views=1), tmp_path / 'again')
    assert again['splits'] == results['splits']
    records = [(tmp_path / name / 'metrics.jsonl').read_bytes() for name in ('cached', 'again')]
    assert records[0] == records[1]


def opened(faces, **phase):
    config = config_of(faces, cache_views=1, **phase)
    run = prepared(config)
    program = PhaseProgram(run, run.phases[0])
    state, fixed = program.init_state(0, run.initial())
    return run, state, fixed


def test_a_step_without_the_leaves_below_the_boundary_is_the_step_of_all(faces):
    run, _, _ = opened(faces)
    phase, after = run.phases[0], []
    program = PhaseProgram(run, phase)
    for step in (program.step_function(), program.jitted_step()):
        state, fixed = program.init_state(0, run.initial())
        loader = program.make_loader(state, fixed)
        for number in range(3):
            state = step(state, fixed, loader.device_data, loader.host_batches([number]), 1)
        after.append(state)
    assert list(after[0].batch_stats) and sorted(after[0].batch_stats) == sorted(after[1].batch_stats)
    jax.tree.map(np.testing.assert_array_equal, *after)


@pytest.mark.slow
def test_views_come_in_turn_and_depend_on_the_example_alone(faces):
    """Over three epochs every example shows its plain view once and its two others once."""
    run, state, fixed = opened(faces)
    feature_spec = FeatureSpec(('pool',), 32, views=3, settings=Augment(flip=0.5, shift=0.2), seed=5)
    variables = Variables(state.trainable | fixed.frozen, state.batch_stats)
    place = {'fingerprint': 'f', 'role': 'train', 'mesh': run.mesh}
    loader = feature_loader.make_feature_loader(
        run.network, feature_spec, variables, run.tasks['primary'].loader, **place
    )
    count = len(run.data.splits['train'].ids)
    everything = np.arange(count)
    rows = np.stack([loader.rows(everything, epoch) for epoch in range(4)])
    assert (np.sort(rows[:3] // count, axis=0) == np.arange(3)[:, None]).all() and (rows[3] == rows[0]).all()
    assert (rows % count == everything).all() and len(set((rows[0] // count).tolist())) == 3
    values = np.asarray(loader.features).reshape(3, count, -1)
    assert (np.abs(values[1] - values[0]).max(1) > 1e-4).all() and (np.abs(values[2] - values[1]).max(1) > 1e-4).all()
    compute = feature_extract.compute(run.network, feature_spec, variables, run.mesh)
    backwards = everything[::-1][:16]
    images = run.tasks['primary'].loader
    host_batches = images.batches(backwards.reshape(2, 8), np.ones((2, 8)))
    again = compute(images.device_data, host_batches, np.int32(2), 2).reshape(16, -1)
    np.testing.assert_allclose(again, values[2][backwards], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('views', [0, 1])
def test_steps_that_one_program_takes_are_those_of_any_other_number_of_programs(faces, views):
    """To the bit, on images and on features; and those of the program of one batch up to rounding."""
    run = prepared(config_of(faces, epochs=20, cache_views=views))
    (phase,) = run.phases
    program = PhaseProgram(run, phase)
    state, fixed = program.init_state(0, run.initial())
    loader, take = program.make_loader(state, fixed), program.step_function()
    after = []
    for cuts in ((4,), (1, 3), (1, 1, 1, 1)):
        state, step = program.init_state(0, run.initial())[0], 0
        for count in cuts:
            host_batches = loader.host_batches([step + min(at, count - 1) for at in range(4)])
            state, step = take(state, fixed, loader.device_data, host_batches, count), step + count
        after.append(state)
    assert int(after[0].step) == 4 and float(after[0].sums['primary/loss']) > 0
    jax.tree.map(np.testing.assert_array_equal, after[0], after[1])
    jax.tree.map(np.testing.assert_array_equal, after[0], after[2])
    state, _ = program.init_state(0, run.initial())
    for step in range(4):
        state = take(state, fixed, loader.device_data, loader.host_batches([step]), 1)
    for left, right in zip(jax.tree.leaves(after[0]), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_the_key_covers_all_that_features_depend_on(faces, tmp_path, monkeypatch):
    run, state, fixed = opened(faces)
    feature_spec, stats = FeatureSpec(('layer2',), 32), state.batch_stats

    def key(feature_spec=feature_spec, params=fixed.frozen, stats=stats, network=run.network, **data):
        return feature_store.cache_key(
            network, feature_spec, Variables(params, stats), **{'fingerprint': 'f', 'role': 'train'} | data
        )

    def changed(tree, path):
        return tree | {path: tree[path] + 1e-6}

    first = key()
    assert first == key()
    assert first == key(params=changed(fixed.frozen, 'layer3.0.conv1.kernel'))  # not below the boundary
    assert first == key(stats=changed(stats, 'layer3.0.bn2.mean'))
    spec = dataclasses.replace(run.network.spec, mean=(0.1,))
    others = [
        key(params=changed(fixed.frozen, 'layer2.0.conv1.kernel')),
        key(stats=changed(stats, 'bn1.var')),
        key(fingerprint='g'),
        key(role='validation'),
        key(stored=(64, 64, 3)),
        key(network=dataclasses.replace(run.network, spec=spec)),
        *(
            key(feature_spec=dataclasses.replace(feature_spec, **field))
            for field in (
                {'stages': ('layer1',)},
                {'stages': ('layer1', 'layer2'), 'pool': 2},
                {'image_size': 48},
                {'dtype': 'bfloat16'},
                {'views': 2, 'settings': Augment(flip=0.5)},
                {'views': 2, 'settings': Augment(flip=0.5), 'seed': 1},
                {'views': 2, 'settings': Augment(flip=0.4)},
            )
        ),
    ]
    monkeypatch.setattr(feature_store.metadata, 'version', lambda package: '0.0.0')
    others.append(key())
    monkeypatch.undo()
    with jax.default_matmul_precision('float32'):
        others.append(key())
    monkeypatch.setattr(feature_store, 'SOURCES', (*feature_store.SOURCES, 'errors.py'))
    others.append(key())
    assert len({first, *others}) == len(others) + 1


@pytest.mark.parametrize('harm', ['flip', 'truncate', 'shape', 'no note', 'no file'])
def test_a_damaged_cache_is_computed_again(faces, own_cache, harm, caplog):
    def rows():
        run, state, fixed = opened(faces)
        return PhaseProgram(run, run.phases[0]).make_loader(state, fixed).device_data['primary']['x']

    before = np.array(rows())  # on a CPU the features may be the mapped file itself
    (path,) = own_cache.glob('*.bin')
    data, note = bytearray(path.read_bytes()), path.with_suffix('.json')
    if harm == 'flip':
        data[1000] ^= 4
        path.write_bytes(data)
    elif harm == 'truncate':
        path.write_bytes(data[:-4])
    elif harm == 'shape':
        note.write_text(json.dumps(json.loads(note.read_text()) | {'shape': [1, 2]}))
    else:
        (note if harm == 'no note' else path).unlink()
    assert np.array_equal(rows(), before)
    assert ('is damaged' in caplog.text) == (not harm.startswith('no '))


def test_every_source_of_the_key_is_a_file_and_the_key_covers_what_computes():
    """A pattern that matches no file would leave changed code out of the key, and features would be stale."""
    package = Path(fer_jax.__file__).parent
    files = {pattern: set(package.glob(pattern)) for pattern in feature_store.SOURCES}
    assert all(files.values()), files
    computing = (
        Preprocessing.normalise, Network.normalise, Network.outputs, adaptive_average_pool, choose, augment, resize,
        recolour, decode, assemble_batch, map_batches, feature_extract.extract, feature_store.cache_key,
    )  # fmt: skip
    missing = {Path(inspect.getfile(function)) for function in computing} - set().union(*files.values())
    assert missing == set()


def test_killed_while_it_is_written_it_is_not_used(faces, tmp_path):
    """SIGKILL after the first batch leaves no file under the key, and the next run computes all of it."""
    config = config_of(faces, cache_views=1)
    config.data.batch_size = 4
    (tmp_path / 'config.json').write_text(config.to_json())
    script = """
import json, os, signal, sys
from fer_jax.feature_cache import loader as feature_loader
from fer_jax.training import setup
from fer_jax.training.phase_program import PhaseProgram
run = setup.prepare(json.load(open(sys.argv[1])))
program = PhaseProgram(run, run.phases[0])
state, fixed = program.init_state(0, run.initial())
compute = feature_loader.compute
def killed(*arguments):
    function = compute(*arguments)
    def call(*batch):
        call.count += 1
        if call.count > 1: os.kill(os.getpid(), signal.SIGKILL)
        return function(*batch)
    call.count = 0
    return call
feature_loader.compute = killed
program.make_loader(state, fixed)
"""
    environment = os.environ | {'FER_JAX_CACHE': str(tmp_path / 'cache')}
    command = [sys.executable, '-c', script, str(tmp_path / 'config.json')]
    assert subprocess.run(command, cwd=REPOSITORY, env=environment, check=False).returncode == -signal.SIGKILL
    assert not list((tmp_path / 'cache' / 'features').glob('*.json'))
    assert not list((tmp_path / 'cache' / 'features').glob('[!.]*.bin'))
    run = prepared(config)
    program = PhaseProgram(run, run.phases[0])
    state, fixed = program.init_state(0, run.initial())
    assert len(program.make_loader(state, fixed).device_data['primary']['x']) == len(run.data.splits['train'].ids)


@pytest.mark.slow
def test_two_processes_may_fill_the_same_cache(faces, tmp_path):
    """Both write all of it under names of their own; what remains is whole, and nothing is left over."""
    (tmp_path / 'config.json').write_text(config_of(faces, cache_views=1).to_json())
    script = """
import json, sys
from fer_jax.training import setup
from fer_jax.training.phase_program import PhaseProgram
run = setup.prepare(json.load(open(sys.argv[1])))
program = PhaseProgram(run, run.phases[0])
state, fixed = program.init_state(0, run.initial())
print('ready', flush=True); sys.stdin.readline()
program.make_loader(state, fixed)
"""
    environment = os.environ | {'FER_JAX_CACHE': str(tmp_path / 'cache')}
    command = [sys.executable, '-c', script, str(tmp_path / 'config.json')]
    pipes = {'stdin': subprocess.PIPE, 'stdout': subprocess.PIPE, 'text': True}
    both = [subprocess.Popen(command, cwd=REPOSITORY, env=environment, **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in both] == ['ready\n'] * 2
    for process in both:
        process.stdin.write('go\n')
        process.stdin.flush()
    for process in both:
        process.communicate()
    assert [process.returncode for process in both] == [0, 0]
    names = sorted(path.suffix for path in (tmp_path / 'cache' / 'features').iterdir())
    assert names == ['.bin', '.json']


def test_features_that_cannot_be_kept_are_computed_all_the_same(faces, own_cache, monkeypatch, caplog):
    def rows():
        run, state, fixed = opened(faces)
        return np.array(PhaseProgram(run, run.phases[0]).make_loader(state, fixed).device_data['primary']['x'])

    kept = rows()
    for path in own_cache.iterdir():
        path.unlink()
    monkeypatch.setattr(feature_store.cache, 'is_writable', lambda folder: False)
    assert np.array_equal(rows(), kept)
    assert 'the features of train are not kept' in caplog.text and not list(own_cache.iterdir())


def test_what_a_killed_process_left_is_swept_after_a_day(faces, own_cache):
    own_cache.mkdir(parents=True)
    old, new = own_cache / '.a.bin.host.1', own_cache / '.b.bin.host.2'
    for path in (old, new):
        path.write_bytes(b'x')
    os.utime(old, (0, 0))
    run, state, fixed = opened(faces)
    PhaseProgram(run, run.phases[0]).make_loader(state, fixed)
    assert not old.exists() and new.exists()


@pytest.mark.parametrize(
    ('phase', 'said'),
    [
        (
            {'rates': default.ALL},
            r'phases\[0\].cache_views keeps what frozen stages compute, but the first stage, stem',
        ),
        ({'augment': {'mixup': 0.2}}, r'phases\[0\].cache_views with mixup=0.2'),
        ({'cache_views': 4}, r'phases\[0\].cache_views=4 of images that are not augmented'),
    ],
)
def test_what_cannot_be_cached_is_refused(faces, phase, said):
    with pytest.raises(UserError, match=said):
        prepared(config_of(faces, **{'cache_views': 1} | phase))


def test_a_disk_that_is_too_small_is_named(faces, monkeypatch):
    run, state, fixed = opened(faces)
    monkeypatch.setattr(feature_store.shutil, 'disk_usage', lambda path: type('Usage', (), {'free': 1000})())
    with pytest.raises(UserError, match=r'the feature cache needs 0.0 GB in .*lower cache_views, set cache_dtype'):
        PhaseProgram(run, run.phases[0]).make_loader(state, fixed)


def test_a_dry_run_compiles_the_step_and_computes_no_features(faces, own_cache, capsys):
    fer_jax.train(config_of(faces, cache_views=1), dry_run=True)
    assert 'phase 0: ' in capsys.readouterr().out and not own_cache.exists()
