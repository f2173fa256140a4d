"""The readers of weights that scripts/robustness/fuzz.py tries, with small valid files of each format."""

import gzip
import io
import json
import pickle
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from scripts.robustness import mutations as changes
from scripts.robustness.mutations import Target

NAMES = {'bn1.mean': 0, 'conv1.kernel': 16}


def torch_files() -> list[bytes]:
    """safetensors, both formats of torch.save, written without torch, and archives around those."""
    from safetensors.numpy import save

    arrays = {
        'conv1.weight': np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3),
        'bn1.num_batches_tracked': np.array(3),
    }
    files = [save(arrays)]
    stream = io.BytesIO()
    writer = TorchPickler(stream, 2)
    writer.dump(arrays)
    storages = [(key, array.tobytes()) for key, array in writer.storages]
    members = [('x/data.pkl', stream.getvalue()), ('x/byteorder', b'little')]
    files.append(changes.zip_of([*members, *((f'x/data/{key}', raw) for key, raw in storages)]))
    legacy = b''.join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}))
    legacy += stream.getvalue() + pickle.dumps([key for key, _ in storages], 2)
    sizes = [struct.pack('<q', array.size) for _, array in writer.storages]
    files.append(legacy + b''.join(size + raw for size, (_, raw) in zip(sizes, storages, strict=True)))
    files.append(gzip.compress(files[1], 1, mtime=0))
    files.append(changes.zip_of([('x/model.pth', files[2])], packed=True))
    return files


class TorchPickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes arrays as torch does tensors, without torch."""

    def __init__(self, file: Any, protocol: int):
        super().__init__(file, protocol)
        self.storages: list[tuple[str, np.ndarray]] = []

    def save(self, value: Any, *rest: Any) -> None:
        if not isinstance(value, np.ndarray):
            super().save(value, *rest)
            return
        key = str(len(self.storages))
        self.storages.append((key, value))
        strides = tuple(stride // value.itemsize for stride in value.strides)
        kind = 'FloatStorage' if value.dtype == np.float32 else 'LongStorage'
        self.write(b'ctorch._utils\n_rebuild_tensor_v2\n')
        self.write(b'((' + self._text('storage') + f'ctorch\n{kind}\n'.encode() + self._text(key) + self._text('cpu'))
        super().save(value.size)
        self.write(b'tQ')
        for part in (0, value.shape, strides, False):
            super().save(part)
        self.write(b'ccollections\nOrderedDict\n)RtR')

    def _text(self, text: str) -> bytes:
        return b'X' + struct.pack('<I', len(text)) + text.encode()


def read_torch(data: bytes, folder: Path) -> None:
    from fer_jax.pretrained.readers.torch_file import read_torch
    from fer_jax.pretrained.readers.unpack import unpacked

    (folder / 'x.pth').write_bytes(data)
    with unpacked(folder / 'x.pth') as inner:
        for array in read_torch(inner).values():
            array.sum()


def converted() -> list[bytes]:
    """Files of fer_jax's own: without a digest, as they were before, and with one."""
    preprocessing = json.dumps({'mean': [0.5], 'std': [0.5], 'order': 'RGB', 'size': 224, 'interpolation': 'bilinear'})
    metadata = {'format': '1', 'model': 'resnet18', 'preprocessing': preprocessing, 'source': 'x'}
    entries = {
        name: {'dtype': 'F32', 'shape': [4], 'data_offsets': [start, start + 16]} for name, start in NAMES.items()
    }
    header = json.dumps({'__metadata__': metadata, **entries}).encode()
    return [struct.pack('<Q', len(header)) + header + bytes(32), with_digest()]


def with_digest() -> bytes:
    from fer_jax.models.preprocessing import Preprocessing
    from fer_jax.pretrained import weights

    params, stats = ({name: np.ones(4, np.float32)} for name in ('conv1.kernel', 'bn1.mean'))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'x.safetensors'
        weights.save(path, weights.Weights('resnet18', params, stats, Preprocessing((0.5,), (0.5,)), {'source': 'x'}))
        written = path.read_bytes()
    size = struct.unpack('<Q', written[:8])[0]
    header = json.dumps(json.loads(written[8 : 8 + size]), sort_keys=True).encode()  # safetensors' own order is random
    return struct.pack('<Q', len(header)) + header + written[8 + size :]


def read_converted(data: bytes, folder: Path) -> None:
    from fer_jax.pretrained import weights

    (folder / 'x.safetensors').write_bytes(data)
    loaded = weights.load(folder / 'x.safetensors', 'resnet18')
    for array in (*loaded.params.values(), *loaded.stats.values()):
        array.sum()


def keras_files() -> list[bytes]:
    """A group a layer, as Keras 2 writes it, and numbered variables, as Keras 3 does."""
    import h5py

    kernel, bias = np.ones((1, 1, 3, 4), np.float32), np.ones(4, np.float32)
    older, newer = io.BytesIO(), io.BytesIO()
    with h5py.File(older, 'w') as file:
        file.attrs['layer_names'] = [b'conv']
        file['conv/conv/kernel:0'], file['conv/conv/bias:0'] = kernel, bias
        file['conv'].attrs['weight_names'] = [b'conv/kernel:0', b'conv/bias:0']
    with h5py.File(newer, 'w') as file:
        file['layers/conv2d/vars/0'], file['layers/conv2d/vars/1'] = kernel, bias
        file['layers/conv2d/vars'].attrs['name'] = 'conv'
    return [older.getvalue(), newer.getvalue()]


def read_keras(data: bytes, folder: Path) -> None:
    from fer_jax.pretrained.readers import keras_file

    keras_file.READ_SECONDS = 3.0
    (folder / 'x.h5').write_bytes(data)
    keras_file.read_keras(folder / 'x.h5')


def pickles() -> list[bytes]:
    """A dictionary of arrays, by several protocols."""
    arrays = {'conv1/kernel': np.arange(6, dtype=np.float32).reshape(2, 3), 'n': np.array(7)}
    return [pickle.dumps(arrays, protocol) for protocol in (0, 2, 4)]


def read_pickle(data: bytes, folder: Path) -> None:
    from fer_jax.pretrained.readers.torch_file import read_torch

    (folder / 'x.pkl').write_bytes(data)
    for array in read_torch(folder / 'x.pkl').values():
        array.sum()


def matlab_files() -> list[bytes]:
    """A network of one layer, plain and compressed."""
    from scipy.io import savemat

    layers = np.empty((1, 1), object)
    layers[0, 0] = {'name': 'conv1', 'filters': np.ones((3, 3, 3, 4), np.float32), 'biases': np.ones((1, 4))}
    files = []
    for compressed in (False, True):
        buffer = io.BytesIO()
        savemat(buffer, {'layers': layers}, do_compression=compressed)
        files.append(b'MATLAB 5.0 MAT-file'.ljust(116) + buffer.getvalue()[116:])  # without the date
    return files


def read_matlab(data: bytes, folder: Path) -> None:
    from fer_jax.pretrained.readers.matlab_file import read_matconvnet

    (folder / 'x.mat').write_bytes(data)
    read_matconvnet(folder / 'x.mat')


def tfjs_manifests() -> list[bytes]:
    """A model.json and a bare manifest, plain and quantised, of 24 bytes in one shard."""
    plain = {'name': 'conv1/kernel', 'shape': [1, 1, 2, 3], 'dtype': 'float32'}
    packed = plain | {'shape': [24], 'quantization': {'dtype': 'uint8', 'scale': 0.5, 'min': -1}}
    groups = [[{'paths': ['x.bin'], 'weights': [weight]}] for weight in (plain, packed)]
    return [json.dumps({'modelTopology': {}, 'weightsManifest': groups[0]}).encode(), json.dumps(groups[1]).encode()]


def read_tfjs(data: bytes, folder: Path) -> None:
    from fer_jax.pretrained.readers.tfjs_file import read_tfjs

    (folder / 'x.bin').write_bytes(bytes(24))
    (folder / 'model.json').write_bytes(data)
    for array in read_tfjs(folder / 'model.json').values():
        array.sum()


def dlib_beginning() -> list[bytes]:
    """The file up to its first parameters, which alone is not accepted; the rest is 22 MB."""
    from fer_jax.pretrained.readers.dlib_file import list_layers

    versions = [1 if layer.kind == '' else 2 for layer in reversed(list(list_layers())[1:])]
    head = b'\1\1\1\x0dloss_metric_2' + b'\1\1' * 4 + b''.join(bytes([1, version]) for version in versions)
    image = b'\1\3\1\x15input_rgb_image_sized' + b'\1\1' * 6 + b'\1\x96' * 2
    return [head + image + b'\1\5con_4\1\2\2\x80\x12' + b'\1\1' * 3 + bytes(64)]


def read_dlib(data: bytes, folder: Path) -> None:
    from fer_jax.pretrained.readers.dlib_file import read_dlib

    (folder / 'x.dat').write_bytes(data)
    try:
        read_dlib(folder / 'x.dat')
    except UserError as error:
        if 'more are announced' not in str(error):  # where the beginning ends
            raise


TARGETS = {
    'torch': Target(torch_files, read_torch, changes.change_safetensors),
    'converted': Target(converted, read_converted, changes.change_safetensors),
    'keras': Target(keras_files, read_keras),
    'pickles': Target(pickles, read_pickle),
    'matlab': Target(matlab_files, read_matlab),
    'tfjs': Target(tfjs_manifests, read_tfjs),
    'dlib': Target(dlib_beginning, read_dlib),
}
