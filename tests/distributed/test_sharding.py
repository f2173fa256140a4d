"""One run on 1 to 8 devices, with the optimizer's state on all of them or shared out."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cluster import REPOSITORY, environment, load_config, write_config

STEPS = """
import dataclasses, functools, json, sys
import jax, jax.numpy as jnp, numpy as np
double, frozen = sys.argv[2] == 'double', 'frozen' in sys.argv[3]
jax.config.update('jax_enable_x64', double)
jax.config.update('jax_num_cpu_devices', 8)
assert jax.device_count() == 8
from configs import default
from fer_jax.models import network; from fer_jax.training import multi_step, setup
from fer_jax.training.phase_program import PhaseProgram
from fer_jax.models.parameters import Variables
from fer_jax.training.train_step import StepProgram, train_step
if double:
    network.DTYPES['float32'] = jnp.float64
config = json.load(open(sys.argv[1]))
config['model'] |= {'name': sys.argv[6], 'dropout': 0.0}
config['data']['augment']['flip'] = 0.0
config['phases'][0] |= {'ema': 0.0, 'learning_rate': 1e-2, 'optimizer': 'sgd', 'weight_decay': 1e-4}
if 'muon' in sys.argv[3]:
    config['phases'][0]['optimizer'] = 'muon'
if frozen:
    config['phases'][0]['rates'] = [[r'layer[23]/.*(conv|kernel)', 1.0], ['head/', 1.0], ['.*', 0.0]]

def cross_entropy(logits, labels):
    losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]
    return losses, jnp.ones_like(losses)

found = {}
for devices, how in json.loads(sys.argv[4]):
    config['parallel'] |= {'devices': devices, 'optimizer': how}
    run = setup.prepare(config)
    assert run.mesh.size == devices
    phase, task = run.phases[0], run.tasks['primary']
    wide = lambda tree: {path: leaf.astype(jnp.float64) if double else leaf for path, leaf in tree.items()}
    program = PhaseProgram(run, phase)
    state, fixed = program.init_state(0, Variables(*map(wide, run.initial())))
    loss = {'loss': cross_entropy} if double else {}
    objectives = {'primary': task.objective._replace(**loss)}
    bound = functools.partial(train_step, program=StepProgram(run.network, phase, objectives, seed=0))
    step = jax.jit(multi_step.loop_steps(bound), donate_argnums=0, out_shardings=program.state_shardings())
    for index in range(4):
        state = step(state, fixed, run.loader.device_data, run.loader.host_batches([index]), 1)
    held = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    share = sum(leaf.addressable_shards[0].data.size for leaf in held) / sum(leaf.size for leaf in held)
    leaves = state.trainable | state.batch_stats | {'share': share, 'loss': state.sums['primary/loss']}
    found |= {f'{devices} {how} {name}': np.asarray(leaf) for name, leaf in leaves.items()}
np.savez(sys.argv[5], **found)
"""
SHARDED = [[1, 'replicated'], [8, 'sharded']]
REPLICATED = [[1, 'replicated'], [2, 'replicated']]


def same(one: np.ndarray, other: np.ndarray, bound: float) -> bool:
    return bool(np.max(np.abs(one - other)) <= bound * max(np.max(np.abs(one)), 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('model', 'precision', 'what', 'bound', 'cases'),
    [
        ('resnet8_small', 'double', 'all', 1e-12, SHARDED),
        ('resnet8_small', 'single', 'all', 1e-4, REPLICATED),
        pytest.param('resnet18', 'double', 'all', 1e-12, SHARDED, marks=pytest.mark.campaign),
        ('resnet8_small', 'double', 'frozen', 1e-12, REPLICATED),
        ('resnet8_small', 'double', 'frozen muon', 1e-10, SHARDED),
    ],
)
def test_any_number_of_devices_trains_as_one(tmp_path, model, precision, what, bound, cases):
    """Four steps of SGD with BatchNorm in training mode, or frozen below the last stages; or of Muon there."""
    config, output = tmp_path / 'config.json', tmp_path / 'found.npz'
    config.write_text(json.dumps(load_config(write_config(tmp_path / 'set'))))
    arguments = [str(config), precision, what, json.dumps(cases), str(output), model]
    optimized = environment(JAX_DISABLE_MOST_OPTIMIZATIONS='0')  # convolutions of float64 take seconds otherwise
    subprocess.run([sys.executable, '-c', STEPS, *arguments], check=True, cwd=REPOSITORY, env=optimized)
    with np.load(output) as found:
        names = [name.removeprefix('1 replicated ') for name in found if name.startswith('1 ')]
        assert any(name.endswith('.var') for name in names)
        for devices, how in cases[1:]:
            for name in set(names) - {'share'}:
                one, other = found[f'1 replicated {name}'], found[f'{devices} {how} {name}']
                assert same(one, other, bound), (devices, how, name, np.max(np.abs(one - other)))
            share = found[f'{devices} {how} share']
            assert share == 1 if how == 'replicated' else share < 1.1 / devices


SCORED = """
import json, pathlib, sys
import jax
jax.config.update('jax_num_cpu_devices', 8)
assert jax.device_count() == 8
import numpy as np
from fer_jax.models.parameters import Variables
from fer_jax.training import setup
from fer_jax.data.tasks import PRIMARY
from fer_jax.evaluation.network_scorer import NetworkScorer
from fer_jax.runs.checkpoints import Checkpoints
config, found = json.load(open(sys.argv[1])), {}
for devices in (1, 8):
    config['parallel']['devices'] = devices
    run = setup.prepare(config)
    params, stats = run.initial()
    params |= {path: leaf + 0.1 for path, leaf in params.items() if path.startswith('head.')}
    kernels = {path: leaf.shape for path, leaf in params.items() if leaf.ndim == 2}
    params |= {path: jax.random.normal(jax.random.key(0), shape) for path, shape in kernels.items()}
    for placement in ('device', 'stream'):
        scorer = NetworkScorer(run.network, run.data, batch_size=8, placement=placement, mesh=run.mesh)
        for role in run.data.splits:
            logits = scorer.logits(role, Variables(params, stats))
            scores = scorer.scores(role, logits)[role]
            found[f'{devices} {placement} {role}'] = logits
            found[f'{devices} {placement} {role} confusion'] = np.asarray(scores['confusion'])
np.savez(sys.argv[2], **found)
jax.lax.slice_in_dim = None  # with it Orbax would cut each of the 8 copies, and compile that for each shape
saved = jax.device_put(Variables(params, stats), run.replicated)
store = Checkpoints(pathlib.Path(sys.argv[3]), run.network.spec)
store.save({'model': saved._asdict(), 'train': {'step': 1}})
store.wait()
like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), saved)
jax.tree.map(np.testing.assert_array_equal, store.restore_model(1, like), saved)
"""


@pytest.mark.slow
def test_every_example_is_scored_once_on_any_number_of_devices(tmp_path):
    """Splits of 33 images, which 8 devices do not cut evenly, and of 6, fewer than devices."""
    (tmp_path / 'config.json').write_text(json.dumps(load_config(write_config(tmp_path / 'set'))))
    arguments = [str(tmp_path / name) for name in ('config.json', 'found.npz', 'run')]
    subprocess.run([sys.executable, '-c', SCORED, *arguments], check=True, cwd=REPOSITORY, env=environment())
    with np.load(tmp_path / 'found.npz') as found:
        for placement in ('device', 'stream'):
            for role, count in (('train', 33), ('validation', 6), ('test', 6)):
                one, eight = found[f'1 device {role}'], found[f'8 {placement} {role}']
                assert one.shape == eight.shape == (count, 3) and np.ptp(one, axis=0).min() > 1e-2
                np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-5)
                confusion = found[f'8 {placement} {role} confusion']
                assert confusion.sum() == count
                np.testing.assert_array_equal(confusion, found[f'1 device {role} confusion'])


def test_processes_with_unequal_devices_are_told(monkeypatch):
    import jax

    from fer_jax.distributed import sharding
    from fer_jax.errors import UserError

    class Device:
        def __init__(self, process):
            self.process_index = process

    monkeypatch.setattr(jax, 'devices', lambda: [Device(0), Device(0), Device(1)])
    with pytest.raises(UserError, match='not all processes have as many devices: 2 in process 0, 1 in process 1'):
        sharding.make_mesh()


def test_the_watchdog_is_armed_while_a_split_is_scored(tmp_path, monkeypatch):
    from fer_jax.distributed import processes
    from fer_jax.evaluation.network_scorer import NetworkScorer
    from fer_jax.training import setup

    class Watched:
        index, finished = 0, lambda self, more=True: said.append(more)

    run, said = setup.prepare(load_config(write_config(tmp_path))), []
    scorer = NetworkScorer(run.network, run.data, batch_size=8, placement='device', mesh=run.mesh)
    monkeypatch.setattr(processes, '_peers', Watched())
    scorer.logits('train', run.initial())
    assert said == [True] * 4 + [False]  # five batches in two programs: each is sent off, and comes back


RESUMED = """
import json, os, signal, sys
import jax
jax.config.update('jax_num_cpu_devices', 8)
jax.devices()
import fer_jax
from fer_jax.training import multi_step; from fer_jax.training import recorder
from fer_jax.utils.signals import Stopped
multi_step.STOP_CHECK_SECONDS = 0  # a step a program
config, workdir = json.load(open(sys.argv[1])), sys.argv[2]
stepped, at = recorder.Recorder.stepped, None

def stopping(recorder, count):
    stepped(recorder, count)
    if recorder._bar.n == 8 * at:
        os.kill(os.getpid(), signal.SIGTERM)

recorder.Recorder.stepped = stopping
for devices, at in ((8, 5), (4, 10), (1, 0)):
    config['parallel']['devices'] = devices
    try:
        fer_jax.train(config, workdir)
        assert devices == 1
    except Stopped as stopped:
        assert f'after step {at}, saved' in str(stopped)
config['parallel'] |= {'devices': 1, 'optimizer': 'replicated'}
fer_jax.train(config, workdir + '-alone')
"""


@pytest.mark.slow
def test_a_run_goes_on_on_fewer_devices(tmp_path):
    """Stopped on 8 devices, then on 4, ended and evaluated on 1, as if it had been there all the time."""
    plain = load_config(write_config(tmp_path / 'set'))
    plain['parallel']['optimizer'] = 'sharded'
    (tmp_path / 'config.json').write_text(json.dumps(plain))
    arguments = [sys.executable, '-c', RESUMED, str(tmp_path / 'config.json'), str(tmp_path / 'run')]
    done = subprocess.run(arguments, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'began on 8 cpu devices in 1 processes, goes on on 4 cpu devices in 1 processes' in done.stdout
    parts = [(tmp_path / name / 'metrics.jsonl').read_text().splitlines() for name in ('run', 'run-alone')]
    assert len(parts[0]) == len(parts[1]) > 17
    for ours, theirs in zip(*[list(map(json.loads, part)) for part in parts], strict=True):
        for name in ours.keys() & {'loss', 'nll', 'gradient_norm'}:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3), (ours['step'], name)
    alone = [sys.executable, '-m', 'fer_jax.evaluate', '--workdir', str(tmp_path / 'run')]  # there it has one device
    alone += ['--output', str(tmp_path / 'scored.json')]
    done = subprocess.run(alone, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted, found = (json.loads((tmp_path / name).read_text()) for name in ('run/results.json', 'scored.json'))
    assert found['step'] == wanted['step']
    for name in ('n', 'confusion', 'nll'):
        ours, theirs = (np.asarray(one['splits']['test'][name]) for one in (found, wanted))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='threads are counted in /proc')
def test_devices_that_wait_for_each_other_leave_threads_to_work():
    """With as many threads as cores, two devices of a busy machine of two cores waited for ever within a minute."""
    code = 'import os, jax, pathlib\nfrom fer_jax.distributed import sharding\n'
    code += 'sharding.make_mesh(2)\njax.numpy.ones(9).sum()\n'
    code += "names = [path.read_text() for path in pathlib.Path('/proc/self/task').glob('*/comm')]\n"
    code += "assert sum('XLAEigen' in name for name in names) == os.cpu_count() + 2, names"
    subprocess.run([sys.executable, '-c', code], cwd=REPOSITORY, env=environment(), check=True)
