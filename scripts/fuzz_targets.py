"""The readers that scripts/fuzz.py tries, with small valid inputs of each."""

import contextlib
import gzip
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fer_jax.errors import UserError
from scripts import fuzz_changes as changes
from scripts.fuzz_changes import Change, tar_of


class Target(NamedTuple):
    """A reader.

    Attributes:
      valid: inputs that it takes.
      read: (input, empty folder) -> nothing; raises UserError where it refuses the input.
      rebuild: changes the structure of an input and keeps its form valid.
    """

    valid: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], Any]
    rebuild: Change | None = None


def images() -> list[bytes]:
    """16 x 12 px of noise in every kind that folders are searched for."""
    from PIL import Image

    random = np.random.default_rng(0)
    colour = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    found = []

    def add(image: Any, kind: str, **options: Any) -> None:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found.append(buffer.getvalue())

    turned = Image.Exif()
    turned[274] = 6
    for kind in ('JPEG', 'PNG', 'BMP', 'WEBP', 'GIF', 'TIFF', 'PPM'):
        add(colour, kind)
    add(colour.convert('L'), 'JPEG', exif=turned)
    add(colour.convert('CMYK'), 'JPEG', progressive=True)
    add(colour.resize((400, 300)), 'JPEG')
    for mode in ('1', 'L', 'LA', 'P', 'RGBA'):
        add(colour.convert(mode), 'PNG')
    add(Image.fromarray(random.integers(0, 65536, (12, 16), np.uint16)), 'PNG')
    add(Image.fromarray(random.random((12, 16), np.float32)), 'TIFF')
    for kind in ('GIF', 'WEBP', 'PNG', 'TIFF'):
        add(colour, kind, save_all=True, append_images=[colour.rotate(90)])
    add(colour, 'TIFF', compression='tiff_lzw')
    return found


def read_image(data: bytes, folder: Path) -> None:
    from fer_jax.data.images import decode

    for size, channels in ((None, 3), (8, 1), (100, 3)):
        decode(data, size, channels, 'x.png')


def manifests() -> list[bytes]:
    """With labels, with votes, and as jsonl."""
    rows = ['path,label,split,subject,group,weight', 'a.png,happy,train,s1,g1,1', 'b.png,sad,validation,s2,g1,0.5']
    votes = ['path,p_happy,p_sad', 'a.png,3,7', 'b.png,10,0']
    lines = [{'path': 'a.png', 'label': {'happy': 3, 'sad': 1}, 'weight': 2}, {'path': 'b.png', 'label': 'sad'}]
    texts = ('\n'.join(rows), '\r\n'.join(votes), '\n'.join(map(json.dumps, lines)) + '\n')
    return [text.encode() for text in texts]


def read_manifest(data: bytes, folder: Path) -> None:
    from fer_jax.data import manifest

    for name in 'ab':
        (folder / f'{name}.png').write_bytes(b'x')
    path = folder / ('faces.jsonl' if data.lstrip()[:1] == b'{' else 'faces.csv')
    path.write_bytes(data)
    manifest.write(folder / 'again.csv', table := manifest.read(path), np.ones(len(table), bool), folder)


def fer2013() -> list[bytes]:
    """Three rows: plain, and in a gz, a zip, a tar and a tar.gz."""
    pixels = ' '.join(['7', '255', '0'] * 768)
    rows = ['emotion,pixels,Usage', f'0,{pixels},Training', f'3,{pixels},PublicTest', f'6,{pixels},PrivateTest']
    plain = '\n'.join(rows).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('fer2013/fer2013.csv', plain)
    tar = tar_of([('fer2013/fer2013.csv', plain)])
    return [plain, gzip.compress(plain), packed.getvalue(), tar, gzip.compress(tar)]


def read_fer2013(data: bytes, folder: Path) -> None:
    from fer_jax.data.builders import fer2013

    suffix = '.gz' if data[:2] == b'\x1f\x8b' else '.csv'
    (folder / f'x{suffix}').write_bytes(data)
    for _ in fer2013.rows(folder / f'x{suffix}'):
        pass


def archives() -> list[bytes]:
    """A downloaded set of two images and a table."""
    members = [('set/a.png', images()[1]), ('set/b.jpg', images()[0]), ('set/list.csv', b'name,label\na,1\nb,2\n')]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w') as archive:
        for name, body in members:
            archive.writestr(name, body)
    return [packed.getvalue(), tar_of(members), gzip.compress(tar_of(members))]


def read_archive(data: bytes, folder: Path) -> None:
    from fer_jax.data.builders.sources import open_source

    (folder / 'set').write_bytes(data)
    source = open_source(folder / 'set')
    source.shape(source.images())
    for name in source.names:
        source.read(name)
    if listed := source.one('list.csv'):
        list(source.table(listed, ('name', 'label')))


def torch_files() -> list[bytes]:
    """safetensors, and both formats of torch.save as torch writes them, which is not needed for it."""
    from safetensors.numpy import save

    arrays = {
        'conv1.weight': np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3),
        'bn1.num_batches_tracked': np.array(3),
    }
    found = [save(arrays)]
    storages, pickles = [], []
    for protocol in (2,):
        stream = io.BytesIO()
        writer = TorchPickler(stream, protocol)
        writer.dump(arrays)
        pickles.append(stream.getvalue())
        storages = writer.storages
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, 'w') as archive:
        archive.writestr('x/data.pkl', pickles[0])
        archive.writestr('x/byteorder', 'little')
        for key, array in storages:
            archive.writestr(f'x/data/{key}', array.tobytes())
    found.append(zipped.getvalue())
    legacy = b''.join(pickle.dumps(one, 2) for one in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}))
    legacy += pickles[0] + pickle.dumps([key for key, _ in storages], 2)
    found.append(legacy + b''.join(struct.pack('<q', array.size) + array.tobytes() for _, array in storages))
    return found


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
    from fer_jax.pretrained.torch_reader import read_torch

    (folder / 'x.pth').write_bytes(data)
    for array in read_torch(folder / 'x.pth').values():
        array.sum()


def converted() -> list[bytes]:
    """A file of fer_jax's own."""
    from safetensors.numpy import save

    look = json.dumps({'mean': [0.5], 'std': [0.5], 'order': 'RGB', 'size': 224, 'interpolation': 'bilinear'})
    metadata = {'format': '1', 'model': 'resnet18', 'preprocessing': look, 'source': 'x'}
    return [save({'bn1.mean': np.zeros(4, np.float32), 'conv1.kernel': np.ones((2, 3), np.float32)}, metadata)]


def read_converted(data: bytes, folder: Path) -> None:
    from fer_jax.pretrained import weights

    (folder / 'x.safetensors').write_bytes(data)
    found = weights.load(folder / 'x.safetensors', 'resnet18')
    for array in (*found.params.values(), *found.stats.values()):
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
    from fer_jax.pretrained.keras_reader import read_keras

    (folder / 'x.h5').write_bytes(data)
    read_keras(folder / 'x.h5')


def pickles() -> list[bytes]:
    """A dictionary of arrays, by several protocols."""
    arrays = {'conv1/kernel': np.arange(6, dtype=np.float32).reshape(2, 3), 'n': np.array(7)}
    return [pickle.dumps(arrays, protocol) for protocol in (0, 2, 4)]


def read_pickle(data: bytes, folder: Path) -> None:
    from fer_jax.pretrained.numpy_reader import read_arrays

    (folder / 'x.pkl').write_bytes(data)
    for array in read_arrays(folder / 'x.pkl').values():
        array.sum()


def matlab_files() -> list[bytes]:
    """A network of one layer, plain and compressed."""
    from scipy.io import savemat

    layers = np.empty((1, 1), object)
    layers[0, 0] = {'name': 'conv1', 'filters': np.ones((3, 3, 3, 4), np.float32), 'biases': np.ones((1, 4))}
    found = []
    for compressed in (False, True):
        buffer = io.BytesIO()
        savemat(buffer, {'layers': layers}, do_compression=compressed)
        found.append(buffer.getvalue())
    return found


def read_matlab(data: bytes, folder: Path) -> None:
    from fer_jax.pretrained.matlab_reader import read_matconvnet

    (folder / 'x.mat').write_bytes(data)
    read_matconvnet(folder / 'x.mat')


def overrides() -> list[bytes]:
    """Flags of the command line, one a line."""
    lines = [
        b'--config.seed=1\n--config.model.name=vgg16',
        b'--config.phases[0].epochs=2.5\n--config.data.drop_classes=("happy",)',
        b'--config.data.batch_size=8\n--workdir=x\n--seeds=0,1',
        b'--config.phases[0].rates=((".*", 1.0),)\n--config.deterministic=true\n--nodry_run',
        b'--config.data.augment.erase_area=(0.1, 0.2)\n--config.loss.name=focal\n--config.loss.gamma=1e-3',
    ]
    return [b'--config=configs/quickstart.py\n' + line for line in lines]


def read_overrides(data: bytes, folder: Path) -> None:
    """Flags are parsed once a process: each time in a new one."""
    from fer_jax import main

    arguments = ['fer_jax', *data.decode('utf-8', 'surrogateescape').split('\n')]
    ours, theirs = os.pipe()
    if child := os.fork():
        os.close(theirs)
        with os.fdopen(ours) as pipe:
            said = pipe.read()
        status = os.waitpid(child, 0)[1]
        if said == 'refused':
            raise UserError(said)
        if said != 'read':
            raise RuntimeError(said or f'status {status}')
        return
    try:
        sys.argv = arguments  # where ml_collections looks for overrides
        main.parse(arguments)
        main._check_config().to_json()
        said = 'read'
    except UserError:
        said = 'refused'
    except BaseException as error:
        said = f'{type(error).__name__}: {error}'
    os.write(theirs, said.encode('utf-8', 'replace')[:1000])
    os._exit(0)


def own_files() -> list[bytes]:
    """What a run writes beside its arrays and reads again: its model, config, records, manifests, locks."""
    spec = {'name': 'resnet18', 'classes': {'primary': ['a', 'b']}, 'image_size': 64, 'mean': [0.5], 'std': [0.5]}
    config = {'seed': 0, 'log_every': 1, 'phases': [{'epochs': 2.0, 'rates': [['.*', 1.0]]}], 'data': {'dir': 'x'}}
    records = [{'step': 1, 'split': 'train', 'loss': 0.5}, {'step': 2, 'split': 'validation', 'accuracy': 0.5}]
    crops = [{'size': 8}, {'file': 'a.png', 'faces': 1, 'boxes': [[1, 2, 3, 4]], 'crops': ['a.png']}]
    lines = ['\n'.join(map(json.dumps, rows)) + '\n' for rows in (records, crops)]
    trees = [
        json.dumps(tree)
        for tree in (
            spec,
            config,
            {'model/x': '0' * 64},
            {'shape': [2, 3], 'dtype': 'float32', 'sha256': '0' * 64, 'what': 'train'},
            {'host': 'elsewhere', 'pid': 7, 'since': '2026-01-01 00:00:00'},
        )
    ]
    return [text.encode() for text in (*lines, *trees)]


def read_own(data: bytes, folder: Path) -> None:
    """The same bytes as each of these files."""
    from fer_jax import checkpoints, drift, features, integrity, lock, records
    from fer_jax.data import crop_folder

    run, step = folder / 'run', folder / 'run' / 'checkpoints' / '5'
    (step / 'model').mkdir(parents=True, exist_ok=True)
    (step / 'model' / 'x').write_bytes(b'x')
    places = ('config.json', 'writer.json', 'metrics.jsonl', 'crops.jsonl', 'checkpoints/model.json', 'x.json', 'x.bin')
    for name in (*places, 'checkpoints/5.manifest.json'):
        (run / name).write_bytes(data)
    config = json.loads(own_files()[3])

    def hold() -> None:
        with lock.one_writer(run):
            pass

    readers: list[Callable[[], Any]] = [
        lambda: checkpoints.read_spec(run),
        lambda: drift.check(run, config),
        lambda: crop_folder._done(run / 'crops.jsonl', {'size': 8}),
        hold,
        lambda: integrity.damage(step),
        lambda: features._is_whole(run / 'x.bin', (2, 3), np.dtype(np.float32)),
        lambda: records.cut_back(run / 'metrics.jsonl', 1),
    ]
    for read in readers:
        with contextlib.suppress(UserError):
            read()


def arrays() -> list[bytes]:
    """Digests of files, and an index of a prepared set, as they are kept between runs."""
    buffer = io.BytesIO()
    np.savez(buffer, stamps=np.array(['a-1-2-3', 'b-1-2-3']), digests=np.zeros((2, 32), np.uint8))
    return [buffer.getvalue()]


def read_arrays(data: bytes, folder: Path) -> None:
    """The kept digests; damaged ones are made anew."""
    from fer_jax.data import files

    (folder / 'images').mkdir(exist_ok=True)
    (folder / 'images' / 'a.png').write_bytes(b'x')
    place = files.hashlib.sha256(os.fsencode((folder / 'images').resolve())).hexdigest()[:16]
    kept = folder / 'cache' / 'digests' / f'{place}.npz'
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(data)
    digests, _ = files.open_files(folder / 'images', np.array(['a.png']))
    assert digests.tobytes() == files.hashlib.sha256(b'x').digest()


def by_kind(random: np.random.Generator, data: bytes) -> bytes:
    return (changes.change_json if data[:1] == b'{' else changes.change_cells)(random, data)


def tables_in_archives(random: np.random.Generator, data: bytes) -> bytes:
    return changes.change_archive(random, data, changes.change_cells)


TARGETS = {
    'images': Target(images, read_image, changes.change_png),
    'manifests': Target(manifests, read_manifest, by_kind),
    'fer2013': Target(fer2013, read_fer2013, tables_in_archives),
    'archives': Target(archives, read_archive, changes.change_archive),
    'torch': Target(torch_files, read_torch, changes.change_safetensors),
    'converted': Target(converted, read_converted, changes.change_safetensors),
    'keras': Target(keras_files, read_keras),
    'pickles': Target(pickles, read_pickle),
    'matlab': Target(matlab_files, read_matlab),
    'overrides': Target(overrides, read_overrides),
    'own files': Target(own_files, read_own, changes.change_json),
    'own arrays': Target(arrays, read_arrays, changes.change_archive),
}
