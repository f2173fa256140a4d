"""Weights of TensorFlow.js: read as its own reader reads them, and nothing that a hostile manifest asks for."""

import json
import re

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.pretrained import convert_file
from fer_jax.pretrained.convert import expected
from fer_jax.pretrained.convert_back import keras_variables
from fer_jax.pretrained.name_tables.keras_names import TF
from fer_jax.pretrained.readers.tfjs_file import read_tfjs
from fer_jax.pretrained.weights import Weights
from tests.real_weights import run_node

DRAW = np.random.default_rng(0)
STORED = {'uint8': np.uint8, 'uint16': np.uint16, 'float16': np.float16}


def group(weights, paths):
    """A group of the manifest of (name, array, quantization), and its bytes."""
    specs = [
        {'name': name, 'shape': list(array.shape), 'dtype': 'float32' if quantisation else str(array.dtype)}
        | ({'quantization': quantisation} if quantisation else {})
        for name, array, quantisation in weights
    ]
    return {'paths': paths, 'weights': specs}, b''.join(array.tobytes() for _, array, _ in weights)


def write(folder, groups):
    """A model.json with these (group, bytes), the bytes cut into as many shards as the group has paths."""
    for described, data in groups:
        cuts = np.linspace(0, len(data), len(described['paths']) + 1).astype(int)
        for name, first, last in zip(described['paths'], cuts[:-1], cuts[1:], strict=True):
            (folder / name).write_bytes(data[first:last])
    file = folder / 'model.json'
    file.write_text(json.dumps({'modelTopology': {}, 'weightsManifest': [described for described, _ in groups]}))
    return file


def quantised(kind, shape):
    if kind == 'float16':
        return DRAW.normal(size=shape).astype(np.float16), {'dtype': kind}
    array = DRAW.integers(0, np.iinfo(STORED[kind]).max, shape, STORED[kind], endpoint=True)
    return array, {'dtype': kind, 'scale': 0.0123, 'min': -1.5}


def test_reads_what_tfjs_reads(tmp_path):
    """Two groups, of one shard and of three, whose cuts go through the middle of a number."""
    plain = [('a', DRAW.normal(size=(3, 2)).astype(np.float32), None), ('b', np.arange(3, dtype=np.int32), None)]
    packed = [(kind, *quantised(kind, (5, 3))) for kind in STORED] + [('scalar', np.float32(2.5), None)]
    file = write(tmp_path, [group(plain, ['x.bin']), group(packed, ['g1of3.bin', 'g2of3.bin', 'g3of3.bin'])])
    entries = read_tfjs(file)
    assert list(entries) == ['a', 'b', *STORED, 'scalar'] and entries['scalar'].shape == ()
    assert all(entries[kind].dtype == np.float32 for kind in STORED)
    np.testing.assert_array_equal(entries['a'], plain[0][1])
    run_node('tfjs_run.mjs', file, tmp_path / 'out.raw')
    flat = np.concatenate([entry.reshape(-1).astype(np.float32) for entry in entries.values()])
    np.testing.assert_array_equal(flat, np.fromfile(tmp_path / 'out.raw', '<f4'))


def test_a_layers_model_is_one_of_keras(tmp_path):
    name = 'mobilenet_v1_025'
    params, stats = (
        {path: DRAW.standard_normal(leaf.shape, np.float32) for path, leaf in tree.items()}
        for tree in expected(name, 7)
    )
    layers = keras_variables(Weights(name, params, stats, TF, {}), 'keras')
    arrays = [(f'{layer}/{leaf}', value, None) for layer, own in layers.items() for leaf, value in own.items()]
    file = write(tmp_path, [group(arrays, ['1.bin', '2.bin'])])
    weights = convert_file(file, name, source='x', licence='y')
    assert weights.preprocessing == TF and weights.metadata['classes'] == '7'
    for path, leaf in (params | stats).items():
        np.testing.assert_array_equal({**weights.params, **weights.stats}[path], leaf, err_msg=path)
    data = bytearray((tmp_path / '2.bin').read_bytes())
    data[0] ^= 1
    (tmp_path / '2.bin').write_bytes(data)
    assert convert_file(file, name, source='x', licence='y').metadata['sha256'] != weights.metadata['sha256']


SPEC = {'name': 'a', 'shape': [2, 3], 'dtype': 'float32'}
SCALES = {'dtype': 'uint8', 'scale': 1, 'min': 0}


@pytest.mark.parametrize(
    ('spec', 'paths', 'message'),
    [
        ({'shape': [2, 4]}, ['x.bin'], 'ends after 32 bytes, its shards have 24'),
        ({'shape': [2, 2]}, ['x.bin'], 'have 24 bytes, its weights 16'),
        ({'shape': [1 << 32] * 32}, ['x.bin'], 'ends after'),
        ({'shape': [10**4000]}, ['x.bin'], 'has the shape .1000'),
        ({'shape': [-2, -3]}, ['x.bin'], r'has the shape \[-2, -3\]'),
        ({'shape': [True, 6]}, ['x.bin'], 'has the shape'),
        ({'shape': [1] * 33}, ['x.bin'], '33 dimensions'),
        ({'dtype': 'string'}, ['x.bin'], "KeyError: 'string'"),
        ({'name': 'n' * 1001}, ['x.bin'], '1,001 characters'),
        ({'name': 7}, ['x.bin'], 'is no text'),
        ({'quantization': SCALES | {'dtype': 'int64'}}, ['x.bin'], "KeyError: 'int64'"),
        ({'quantization': SCALES | {'scale': float('inf')}, 'shape': [24]}, ['x.bin'], 'quantised with scale inf'),
        ({}, ['../x.bin'], 'is not the name of a file in its folder'),
        ({}, ['/etc/passwd'], 'is not the name of a file in its folder'),
        ({}, ['https://example.org/x.bin'], 'is not the name of a file in its folder'),
        ({}, ['x.bin', 'x.bin'], 'names a shard twice'),
        ({}, ['x.bin', 'y.bin'], r'needs y\.bin in the same folder'),
        ({}, [7], 'is not the name'),
        ({}, 'x', 'needs x in the same folder'),
    ],
)
def test_a_hostile_manifest_is_refused(spec, paths, message, tmp_path):
    (tmp_path / 'x.bin').write_bytes(bytes(24))
    file = tmp_path / 'model.json'
    file.write_text(json.dumps({'weightsManifest': [{'paths': paths, 'weights': [SPEC | spec]}]}))
    with pytest.raises(UserError, match=message):
        convert_file(file, 'mobilenet_v1', source='x', licence='y')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"weightsManifest": ' + '[' * 100_000, 'RecursionError|JSONDecodeError'),
        ('{"weightsManifest": 7}', 'is not a list'),
        ('{"modelTopology": {}}', "KeyError: 'weightsManifest'"),
        ('{"weightsManifest": []}', 'lists no weights'),
        ('{"weightsManifest": [{"paths": [], "weights": ' + json.dumps([SPEC] * 100_001) + '}]}', '100,001 weights'),
        ('{"weightsManifest": [' + ' ' * (16 << 20) + ']}', 'bytes of JSON'),
        ('{"weight_map": {}}', 'is the index of weights in several files; join them'),
    ],
)
def test_json_of_another_kind_is_refused(text, message, tmp_path):
    file = tmp_path / 'model.json'
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        convert_file(file, 'mobilenet_v1', source='x', licence='y')
    assert re.search(re.escape(str(file)), str(caught.value))
