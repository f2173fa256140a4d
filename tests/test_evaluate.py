"""The evaluate command on finished runs."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import fer_jax
from fer_jax import evaluate
from fer_jax.data.augmentation.augment import augment
from fer_jax.data.imaging import codec
from fer_jax.evaluation import evaluate_runs
from fer_jax.inference import tta as inference_tta
from fer_jax.models.network import build
from fer_jax.models.parameters import Variables
from fer_jax.runs import model_file
from fer_jax.runs import results as run_results
from fer_jax.utils import checked_files
from tests.lazy import lazy
from tests.small_run import restored

special = lazy('scipy.special')
REPOSITORY = Path(__file__).parents[1]


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


@pytest.mark.slow
@pytest.mark.parametrize('tta', ['flip', 'tencrop', '3'])
def test_views_at_test_time_are_averaged(finished, faces, tta):
    """Probabilities, against a loop over the views made by hand."""
    workdir, results = finished
    part = run_results.read_predictions(workdir / 'predictions.npz', 'test')
    looks = np.stack([codec.decode((faces / name).read_bytes(), 32, 1, name) for name in part['ids']])
    spec, model = model_file.read_spec(workdir), restored(workdir, best=True)
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
        logits = network.forward(Variables(*model.values()), network.normalise(one))[0]['primary']
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
    checked_files.write_json(tmp_path / 'runs' / 'seed-1' / 'config.json', {**config, 'seed': 1})
    part = run_results.read_predictions(workdir / 'predictions.npz', 'test')
    shares = special.softmax(part['logits'].astype(np.float64), 1)
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
