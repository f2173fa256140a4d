"""A loaded run."""

import contextlib
import json
import pickle
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import fer_jax
from fer_jax.data.augmentation.geometry import resize
from fer_jax.data.quality import unreadable
from fer_jax.data.sources import folder
from fer_jax.errors import UserError
from fer_jax.exporters import exported_function
from fer_jax.inference import host_batches
from fer_jax.inference.predictor import Predictor
from fer_jax.training import setup
from tests.small_run import config_of
from tests.wait import LIMIT

COMPILED = '/jax/core/compile/backend_compile_duration'


@contextlib.contextmanager
def compilations():
    """Yields a list that grows by one with every program that is compiled."""
    names = []

    def listen(event, duration, **fields):
        if event == COMPILED:
            names.append(fields.get('fun_name', ''))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield names
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def noise(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


@pytest.mark.slow
def test_a_loaded_run_answers_as_the_evaluation_does(finished, faces):
    workdir, results = finished
    predictor = fer_jax.load(workdir)
    assert predictor.classes == ('angry', 'happy', 'surprise')
    config = json.loads(config_of(faces).to_json())
    split = setup.prepare(config).data.splits['test']
    probabilities = predictor(split.read(np.arange(len(split.labels))))
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    assert np.mean(probabilities.argmax(-1) == split.labels) == results['splits']['test']['accuracy']
    one = split.read(np.array([0]))[0]
    np.testing.assert_allclose(predictor(one), predictor(one[None, ..., 0]), rtol=1e-6)


@pytest.mark.parametrize(
    ('images', 'message'),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r'expected uint8 images \[B, H, W, 1 or 3\], got float32 \[2, 8, 8, 3\]'),
        (np.zeros((2, 8, 8, 4), np.uint8), r'got uint8 \[2, 8, 8, 4\]'),
        (np.zeros((2, 0, 8, 3), np.uint8), r'got uint8 \[2, 0, 8, 3\]'),
        ([np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8)], r'\[H, W, 1 or 3\], got uint8 \[8, 8, 4\]'),
        ([np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8)], 'got grey and RGB'),
    ],
)
def test_what_is_no_image_is_refused(images, message):
    with pytest.raises(ValueError, match=message):
        host_batches.check_images(images)


@pytest.mark.slow
def test_shapes_compile_few_programs(untrained):
    predictor = fer_jax.load(untrained)
    with compilations() as programs:
        for side in range(20, 70):
            predictor(noise(1, side, side + 3, 3))
        assert len(programs) == 1
        del programs[:]
        for count in range(1, 50):
            predictor(noise(count, 48, 48, 3))
        assert len(programs) == 4  # for 1, 4, 16 and 64 images that need no resizing


@pytest.mark.parametrize('shape', [(31, 47, 3), (48, 48, 1), (300, 211, 3), (9, 700, 1)])
def test_the_host_resizes_as_the_evaluation_does(shape):
    image = noise(*shape)
    np.testing.assert_allclose(host_batches.resize_on_host(image, 48), resize(image[None], 48)[0], atol=1e-3)


def test_images_of_different_sizes_are_classified_as_each_alone(untrained):
    predictor = fer_jax.load(untrained)
    crops = [noise(side, side, 3) for side in range(40, 60)]
    together = predictor(crops)
    assert together.shape == (20, 7)
    np.testing.assert_allclose(together, np.concatenate([predictor(crop) for crop in crops]), atol=1e-5)
    assert predictor([]).shape == predictor(np.zeros((0, 9, 9, 3), np.uint8)).shape == (0, 7)


@pytest.mark.slow
@pytest.mark.parametrize('tta', ['flip', 'tencrop', '2'])
def test_views_are_those_of_the_evaluation(untrained, tta):
    from fer_jax.inference.eval_step import eval_step

    predictor, images = fer_jax.load(untrained, tta=tta), noise(3, 60, 60, 1)
    batch = {'x': images, 'id': np.arange(3, dtype=np.int32)}
    logits = eval_step(predictor._variables, batch, network=predictor._network, tta=tta)
    np.testing.assert_allclose(predictor(images), jax.nn.softmax(logits), atol=1e-5)


@pytest.mark.parametrize('count', [1, 2, 3, 4, 5, 17, 33, 255, 257, 1000])
def test_a_batch_is_padded_by_less_than_half(count):
    parts = list(host_batches.split_into_parts(count))
    assert [first for first, _, _ in parts] == [0, *(last for _, last, _ in parts[:-1])] and parts[-1][1] == count
    assert all(size in host_batches.BATCH_SIZES and size < 2 * (last - first) for first, last, size in parts)


FORK = """
import multiprocessing, sys
import numpy as np
import fer_jax
from fer_jax.errors import UserError

classify, image = fer_jax.load(sys.argv[1]), np.zeros((9, 9, 3), np.uint8)
classify(image)

def use(how):
    try:
        classify(image) if how == 'classify' else fer_jax.load(sys.argv[1])
    except UserError as error:
        return str(error)

with multiprocessing.get_context('fork').Pool(1) as pool:
    print(*pool.map(use, ['classify', 'load']), sep='\\n')
"""


def test_a_fork_is_refused_at_once(untrained):
    command = [sys.executable, '-c', FORK, str(untrained)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT).stdout.splitlines()
    assert len(lines) == 2
    assert all('JAX hangs in a fork' in line and "get_context('spawn')" in line for line in lines)


def test_a_classifier_is_sent_to_a_process_as_its_workdir(untrained):
    predictor = fer_jax.load(untrained, tta='flip')
    sent = pickle.dumps(predictor)
    assert len(sent) < 1000
    image = noise(50, 50, 3)
    np.testing.assert_array_equal(pickle.loads(sent)(image), predictor(image))


def test_images_of_a_table_are_decoded_once_and_broken_ones_are_passed_over(untrained, tmp_path, monkeypatch, capsys):
    for number in range(3):
        Image.fromarray(noise(48, 48, 3)).save(tmp_path / f'{number}.png')
    (tmp_path / '1.png').write_bytes(b'no image')
    decoded, decode = [], unreadable.decode_pixels
    monkeypatch.setattr(unreadable, 'decode_pixels', lambda data, *rest: decoded.append(data) or decode(data, *rest))
    table = folder.unlabelled(tmp_path)
    index, logits, broken = Predictor(untrained).predict_table(table)
    assert index.tolist() == [0, 2] and logits.shape == (2, 7) and len(decoded) == 3
    assert broken == {'1.png': "no known image format, it begins with b'no image'"}
    assert len(exported_function.real_images(untrained, str(tmp_path)).images) == 2
    assert capsys.readouterr().out.startswith('left out: 1 (unreadable): 1.png (no known image format')
    with pytest.raises(UserError, match='none of the 1 images of .* can be read: 1.png'):
        Predictor(untrained).predict_table(table.take(np.array([1])))
