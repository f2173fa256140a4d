"""The network that comes with fer_jax, exported, and read by other runtimes."""

import contextlib
import hashlib
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
from fer_jax.reporting import model_card
from fer_jax.runs import restore

pytest.importorskip('onnxruntime')

EXAMPLES = Path(__file__).parents[2] / 'examples'


@pytest.fixture(scope='module')
def crops(shared_data) -> list[Path]:
    """Faces of CK+48, some of each expression."""
    return [path for folder in sorted((shared_data / 'ck48').iterdir()) for path in sorted(folder.iterdir())[::20]]


@pytest.fixture(scope='module')
def onnx_file(shared_data, tmp_path_factory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp('export') / 'faces.onnx'
    given = ['--format', 'onnx', '--output', str(output), '--images', str(shared_data / 'ck48')]
    done = run(
        [sys.executable, '-m', 'fer_jax.export', '--workdir', 'release:fer2013', *given, '--data_licence', 'my own']
    )
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
    predictor = fer_jax.load('release:fer2013')
    faces = np.stack([np.asarray(Image.open(path).convert('RGB').resize((48, 48))) for path in crops[:5]])
    rows = predictor.calibrated(faces)
    wanted = [(int(row.argmax()), pytest.approx(row.max(), abs=1e-4)) for row in rows]
    names = [predictor.classes[at] for at, _ in wanted]
    paths = list(map(str, crops[:5]))
    found = told(run([sys.executable, str(EXAMPLES / 'faces_onnx.py'), str(output), *paths]).stdout)
    assert found == list(zip(names, (share for _, share in wanted), strict=True))

    artifact = tmp_path / 'faces.stablehlo'
    artifact.write_bytes(exported_function.Exported('release:fer2013').stablehlo())
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
    rows = fer_jax.load('release:fer2013').calibrated(faces)
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
    given = ['--workdir', 'release:fer2013', '--format', 'onnx', '--output', str(output)]
    assert export.main([*given, '--images', str(faces)]) == 2
    assert 'the graph deviates by 0.0002, more than 0.0001; nothing is written' in capsys.readouterr().err
    assert not output.parent.exists()


def test_without_real_images_it_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setenv('FER_JAX_CACHE', str(tmp_path / 'empty'))
    with pytest.raises(UserError, match='verified on real images first, .* name others with --images'):
        export_run.export(fer_jax.runs.restore.resolve_workdir('release:fer2013'), 'onnx', tmp_path / 'faces.onnx')
    (tmp_path / 'own.safetensors.md').mkdir()
    with pytest.raises(UserError, match='own.safetensors.md cannot be written .*; choose another --output'):
        export_run.export(
            fer_jax.runs.restore.resolve_workdir('release:fer2013'), 'safetensors', tmp_path / 'own.safetensors'
        )
    with pytest.raises(UserError, match='--output=.*README has no ending; give a file such as faces.onnx: the card'):
        export_run.export(fer_jax.runs.restore.resolve_workdir('release:fer2013'), 'onnx', tmp_path / 'README')
    with pytest.raises(UserError, match='--format=keras is not a form of resnet8_small; choose onnx, stablehlo, saf'):
        export_run.export(fer_jax.runs.restore.resolve_workdir('release:fer2013'), 'keras', tmp_path / 'x')


def test_the_release_is_weights_to_start_from(tmp_path):
    output, other = tmp_path / 'own.safetensors', tmp_path / 'own.md'
    other.write_text('of somebody else')
    assert export.main(['--workdir', 'release:fer2013', '--format', 'safetensors', '--output', str(output)]) == 0
    assert other.read_text() == 'of somebody else' and output.stat().st_mode == other.stat().st_mode
    network = fer_jax.models.create('resnet8_small', weights=str(output), channels=1)
    faces = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 1), np.uint8)
    logits = np.asarray(network(network.preprocessing.normalise(faces))['primary'])
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(fer_jax.load('release:fer2013')(faces), chances, atol=1e-5)
    card = (tmp_path / 'own.safetensors.md').read_text()
    assert f'sha256   {hashlib.sha256(output.read_bytes()).hexdigest()}' in card
    assert 'Images: grey, 48 px' in card and 'Licence of the data: none came with FER2013 (Goodfellow' in card


@pytest.mark.parametrize('call', range(6))
def test_a_killed_export_leaves_a_card_only_beside_its_own_file(tmp_path, monkeypatch, call):
    output, card = tmp_path / 'own.safetensors', tmp_path / 'own.safetensors.md'
    export_run.export(restore.resolve_workdir('release:fer2013'), 'safetensors', output)
    text, calls = card.read_text(), []

    class Killed(BaseException):
        pass

    def killed(function):
        def counted(*given, **named):
            calls.append(function)
            if len(calls) == call + 1:
                raise Killed
            return function(*given, **named)

        return counted

    with monkeypatch.context() as patched, contextlib.suppress(Killed):
        for name in ('replace', 'unlink'):
            patched.setattr(Path, name, killed(getattr(Path, name)))
        patched.setattr(model_card, 'CAUTION', 'another caution')
        export_run.export(restore.resolve_workdir('release:fer2013'), 'safetensors', output)
    digest = hashlib.sha256(output.read_bytes()).hexdigest()
    assert not card.exists() or (digest in card.read_text() and card.read_text().endswith(text[-1]))
    assert sorted(path.name for path in tmp_path.iterdir()) in ([output.name], [output.name, card.name])


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


def test_lower_precision_says_what_it_costs(untrained, crops, tmp_path, capsys):
    """On images whose labels are known, by their folders; the file runs in onnxruntime, and is smaller."""
    for number, path in enumerate(crops):
        place = tmp_path / 'faces' / path.parent.name / f'{number}.png'
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    given = ['--workdir', str(untrained), '--format', 'onnx', '--images', str(tmp_path / 'faces')]
    sizes, faces = {}, np.zeros((2, 48, 48, 3), np.uint8)
    for precision in ('float32', 'float16', 'int8'):
        output = tmp_path / f'{precision}.onnx'
        calibrate = ['--calibrate', str(tmp_path / 'faces')] if precision == 'int8' else []
        assert export.main([*given, '--output', str(output), '--precision', precision, *calibrate]) == 0
        printed = capsys.readouterr().out
        pattern = rf'{precision}: [\d.]+ % of the labels are those of float32; accuracy .* a change of [+-]\d+\.\d\d\n'
        assert bool(re.search(pattern.replace(' %', '%', 1), printed)) == (precision != 'float32')
        sizes[precision] = output.stat().st_size
        rows = exported_function.in_onnxruntime(output.read_bytes())(faces)
        np.testing.assert_allclose(rows, fer_jax.load(untrained).calibrated(faces), atol=0.1)
    assert sizes['int8'] < 0.6 * sizes['float16'] < 0.36 * sizes['float32']
    for wrong, message in (
        (['--precision', 'int4'], '--precision'),
        (['--precision', 'int8'], 'int8 is calibrated on training images, .*; name others with --calibrate FOLDER'),
        (['--calibrate', 'x'], '--calibrate=x is for --precision int8'),
    ):
        assert export.main([*given, '--output', str(output), *wrong]) == 2
        assert re.search(message, capsys.readouterr().err)
