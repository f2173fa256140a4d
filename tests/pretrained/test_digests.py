"""Damage to converted weights, and to files that are published with a digest, is noticed at every use."""

import json
import random
import struct

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fer_jax import pretrained
from fer_jax.errors import UserError
from fer_jax.models.preprocessing import Preprocessing
from fer_jax.pretrained import locate, published_weights
from fer_jax.pretrained.weights import DIGEST, WITHOUT_DIGEST


@pytest.fixture
def path(tmp_path):
    """A converted file of two small tensors."""
    params, stats = {'conv1.kernel': np.arange(54, dtype=np.float32)}, {'bn1.mean': np.ones(8, np.float32)}
    weights = pretrained.Weights(
        'resnet18', params, stats, Preprocessing((0.5,), (0.25,)), {'source': 'x', 'classes': '7'}
    )
    pretrained.save(tmp_path / 'x.safetensors', weights)
    return tmp_path / 'x.safetensors'


def test_every_flipped_bit_and_changed_digit_is_noticed(path):
    whole, draw = path.read_bytes(), random.Random(0)
    assert pretrained.load(path, 'resnet18').metadata == {'source': 'x', 'classes': '7'}
    digits = [index for index, byte in enumerate(whole) if chr(byte).isdigit()]
    changes = [
        (index, bytes([whole[index] ^ 1 << bit])) for index in draw.sample(range(len(whole)), 150) for bit in (0, 5)
    ]
    changes += [(index, b'1' if whole[index : index + 1] != b'1' else b'7') for index in digits]
    for index, byte in changes:
        path.write_bytes(whole[:index] + byte + whole[index + 1 :])
        with pytest.raises(UserError):
            loaded = pretrained.load(path, 'resnet18')
            assert not loaded, f'{whole[index - 20 : index + 20]} with {byte} at its middle'


def test_files_of_before_are_read_as_they_are(path, capsys, caplog):
    content = path.read_bytes()
    (length,) = struct.unpack('<Q', content[:8])
    metadata = json.loads(content[8 : 8 + length])['__metadata__']
    del metadata[DIGEST]
    save_file(load_file(path), path, metadata=metadata | {'format': WITHOUT_DIGEST})
    assert pretrained.load(path, 'resnet18').params['conv1.kernel'][3] == 3
    assert not capsys.readouterr().out and not caplog.records


def test_a_packages_file_is_verified_at_every_use(tmp_path, monkeypatch):
    known = next(known for known in published_weights.PUBLISHED if known.model == 'efficientnet_lite0')
    file = locate.installed_file(known)
    if file is None:
        pytest.skip(f'{known.package} is not installed')
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / file.name).write_bytes(damaged)
    monkeypatch.setattr(locate, 'installed_file', lambda _: tmp_path / file.name)
    with pytest.raises(UserError, match=r'has the digest sha256:.*published is sha256:57934424\.\.\.: it is damaged'):
        pretrained.resolve('imagenet', 'efficientnet_lite0', cache=tmp_path / 'cache')
    with pytest.raises(UserError, match='it is damaged; fetch it again'):
        pretrained.convert_file(tmp_path / file.name, 'efficientnet_lite0', source='x', licence='x')
