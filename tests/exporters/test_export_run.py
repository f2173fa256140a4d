"""The network that comes with fer_jax, exported, and read by other runtimes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import fer_jax
from fer_jax import export, pretrained
from fer_jax.errors import UserError
from fer_jax.exporters import export_run, exported_function
from fer_jax.runs import restore

pytest.importorskip('onnxruntime')

EXAMPLES = Path(__file__).parents[2] / 'docs' / 'examples'


@pytest.fixture(scope='module')
def crops(shared_data) -> list[Path]:
    """Faces of CK+48, some of each expression."""
    return [path for folder in sorted((shared_data / 'ck48').iterdir()) for path in sorted(folder.iterdir())[::20]]


@pytest.fixture(scope='module')
def onnx_file(shared_data, tmp_path_factory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp('export') / 'faces.onnx'
    given = ['--format', 'onnx', '--output', str(output), '--images', str(shared_data / 'ck48')]
    done = run([sys.executable, '-m', 'fer_jax.export', '--workdir', 'release', *given, '--data_licence', 'my own'])
    return output, done.stdout


def run(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder or Path(__file__).parents[2])


def told(output: str) -> list[tuple[str, float]]:
    return [(words[-2], float(words[-1])) for words in map(str.split, output.splitlines())]


@pytest.mark.slow
def test_what_is_written_was_verified(onnx_file):
    output, printed = onnx_file
    found = re.search(r'verified on 981 images: largest deviation (\S+), labels equal on 981\n', printed)
    assert found and float(found[1]) <= 1e-5
    assert re.search(r'speed +[\d,]+ images/s in onnxruntime, [\d,]+ in fer_jax', printed)
    card = output.with_name('faces.onnx.md').read_text()
    for part in ('resnet8_small', 'opset 18', 'set: fer2013', 'my own', '| test_clean | 3,275 |', 'Do not use it to',
                 "squares about a detector's box with a margin, on every side, of 0 of"):  # fmt: skip
        assert part in card
    assert sorted(path.name for path in output.parent.iterdir()) == ['faces.onnx', 'faces.onnx.md']


def test_other_runtimes_read_it(onnx_file, crops, tmp_path):
    """onnxruntime alone, onnxruntime-web under Node, and the StableHLO by JAX alone: all as `fer_jax.load`."""
    output, _ = onnx_file
    predictor = fer_jax.load('release')
    faces = np.stack([np.asarray(Image.open(path).convert('RGB').resize((48, 48))) for path in crops[:5]])
    rows = predictor.calibrated(faces)
    wanted = [(int(row.argmax()), pytest.approx(row.max(), abs=1e-4)) for row in rows]
    names = [predictor.classes[at] for at, _ in wanted]
    paths = list(map(str, crops[:5]))
    found = told(run([sys.executable, str(EXAMPLES / 'faces_onnx.py'), str(output), *paths]).stdout)
    assert found == list(zip(names, (share for _, share in wanted), strict=True))

    artifact = tmp_path / 'faces.stablehlo'
    artifact.write_bytes(exported_function.Exported('release').stablehlo())
    text = jax.export.deserialize(bytearray(artifact.read_bytes())).mlir_module()
    assert 'HIGHEST' in text and 'DEFAULT' not in text  # which on a GPU is TF32
    found = told(run([sys.executable, str(EXAMPLES / 'faces_stablehlo.py'), str(artifact), *paths]).stdout)
    assert [(int(name), share) for name, share in found] == wanted


def test_node_reads_it(onnx_file, crops, tmp_path):
    output, _ = onnx_file
    modules = Path(os.environ.get('FER_JAX_NODE_MODULES', Path(__file__).parents[2] / 'node_modules'))
    if shutil.which('node') is None or not (modules / 'onnxruntime-web').is_dir():
        pytest.skip(f'no Node, or no onnxruntime-web in {modules}: npm install --no-package-lock onnxruntime-web')
    shutil.copy(EXAMPLES / 'faces.mjs', tmp_path)
    (tmp_path / 'node_modules').symlink_to(modules.resolve())
    faces = np.stack([np.asarray(Image.open(path).convert('RGB').resize((48, 48))) for path in crops[:3]])
    for at, face in enumerate(faces):
        (tmp_path / f'{at}.rgb').write_bytes(face.tobytes())
    printed = run(['node', 'faces.mjs', str(output), '0.rgb', '1.rgb', '2.rgb'], tmp_path).stdout
    rows = fer_jax.load('release').calibrated(faces)
    wanted = [(int(row.argmax()), pytest.approx(row.max(), abs=1e-4)) for row in rows]
    assert [(int(name), share) for name, share in told(printed)] == wanted


def test_a_graph_that_deviates_is_not_written(crops, tmp_path, monkeypatch, capsys):
    faces = tmp_path / 'faces'
    faces.mkdir()
    for path in crops[:3]:
        shutil.copy(path, faces)
    right = exported_function.in_onnxruntime

    def wrong(model):
        return lambda images: right(model)(images) + np.float32(2e-4)

    monkeypatch.setattr(exported_function, 'in_onnxruntime', wrong)
    output = tmp_path / 'out' / 'faces.onnx'
    given = ['--workdir', 'release', '--format', 'onnx', '--output', str(output)]
    assert export.main([*given, '--images', str(faces)]) == 2
    assert 'the graph deviates by 0.0002, more than 0.0001; nothing is written' in capsys.readouterr().err
    assert not output.parent.exists()


def test_without_real_images_it_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path / 'empty'))
    with pytest.raises(UserError, match='verified on real images first, .* name others with --images'):
        export_run.export(fer_jax.runs.restore.resolve_workdir('release'), 'onnx', tmp_path / 'faces.onnx')
    (tmp_path / 'own.safetensors.md').mkdir()
    with pytest.raises(UserError, match='own.safetensors.md cannot be written .*; choose another --output'):
        export_run.export(fer_jax.runs.restore.resolve_workdir('release'), 'safetensors', tmp_path / 'own.safetensors')
    with pytest.raises(UserError, match='--output=.*README has no ending; give a file such as faces.onnx: the card'):
        export_run.export(fer_jax.runs.restore.resolve_workdir('release'), 'onnx', tmp_path / 'README')
    with pytest.raises(UserError, match='--format=keras is not a form of resnet8_small; choose onnx, stablehlo, saf'):
        export_run.export(fer_jax.runs.restore.resolve_workdir('release'), 'keras', tmp_path / 'x')


def test_the_release_is_weights_to_start_from(tmp_path):
    output, other = tmp_path / 'own.safetensors', tmp_path / 'own.md'
    other.write_text('of somebody else')
    assert export.main(['--workdir', 'release', '--format', 'safetensors', '--output', str(output)]) == 0
    assert other.read_text() == 'of somebody else' and output.stat().st_mode == other.stat().st_mode
    network = fer_jax.models.create('resnet8_small', weights=str(output), channels=1)
    faces = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 1), np.uint8)
    logits = np.asarray(network(network.preprocessing.normalise(faces))['primary'])
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(fer_jax.load('release')(faces), chances, atol=1e-5)
    card = (tmp_path / 'own.safetensors.md').read_text()
    assert 'Images: grey, 48 px' in card and 'Licence of the data: none came with FER2013 (Goodfellow' in card


def test_the_licence_of_weights_goes_along_from_run_to_run(untrained, tmp_path):
    run, output = tmp_path / 'run', tmp_path / 'own.safetensors'
    shutil.copytree(untrained, run)
    began = {'source': 'package x', 'sha256': '0', 'licence': 'Apache-2.0'}
    for _ in range(2):  # a run that starts from those weights, then one that starts from that
        (run / 'environment.json').write_text(json.dumps({'weights': began}))
        began = restore.weights_of_run(run).metadata
    assert began == {'source': str(run), 'step': '7', 'licence': 'Apache-2.0',
                     'began_from': f'{run}, which began from package x'}  # fmt: skip
    export_run.export(run, 'safetensors', output)
    metadata = pretrained.load(output, 'resnet8_small').metadata
    assert metadata.items() >= began.items()
    assert f'{run}, which began from package x; licence: Apache-2.0.' in (tmp_path / f'{output.name}.md').read_text()
