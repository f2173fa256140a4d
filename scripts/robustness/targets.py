"""The readers that scripts/robustness/fuzz.py tries, with small valid inputs of each."""

import contextlib
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from scripts.robustness import mutations as changes
from scripts.robustness import weight_targets
from scripts.robustness.mutations import Target, tar_of, zip_of


def images() -> list[bytes]:
    """16 x 12 px of noise in every kind that folders are searched for."""
    from PIL import Image

    random = np.random.default_rng(0)
    colour = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    result = []

    def add(image: Any, kind: str, **options: Any) -> None:
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        result.append(buffer.getvalue())

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
    return result


def read_image(data: bytes, folder: Path) -> None:
    from fer_jax.data.imaging.codec import decode

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
    from fer_jax.data.sources import manifest

    for name in 'ab':
        (folder / f'{name}.png').write_bytes(b'x')
    path = folder / ('faces.jsonl' if data.lstrip()[:1] == b'{' else 'faces.csv')
    path.write_bytes(data)
    manifest.write_manifest(
        folder / 'again.csv', table := manifest.read_manifest(path), np.ones(len(table), bool), folder
    )


def fer2013() -> list[bytes]:
    """Three rows: plain, and in a gz, a zip, a tar and a tar.gz."""
    pixels = ' '.join(['7', '255', '0'] * 768)
    rows = ['emotion,pixels,Usage', f'0,{pixels},Training', f'3,{pixels},PublicTest', f'6,{pixels},PrivateTest']
    plain = '\n'.join(rows).encode()
    members = [('fer2013/fer2013.csv', plain)]
    packed = [gzip.compress(data, mtime=0) for data in (plain, tar_of(members))]
    return [plain, zip_of(members, packed=True), tar_of(members), *packed]


def read_fer2013(data: bytes, folder: Path) -> None:
    from fer_jax.data.sets import fer2013

    suffix = '.gz' if data[:2] == b'\x1f\x8b' else '.csv'
    (folder / f'x{suffix}').write_bytes(data)
    for _ in fer2013.rows(folder / f'x{suffix}'):
        pass


def archives() -> list[bytes]:
    """A downloaded set of two images and a table."""
    members = [('set/a.png', images()[1]), ('set/b.jpg', images()[0]), ('set/list.csv', b'name,label\na,1\nb,2\n')]
    return [zip_of(members), tar_of(members), gzip.compress(tar_of(members), mtime=0)]


def read_archive(data: bytes, folder: Path) -> None:
    from fer_jax.data.sets.archives import open_source

    (folder / 'set').write_bytes(data)
    source = open_source(folder / 'set')
    source.shape(source.images())
    for name in source.names:
        source.read(name)
    if listed := source.one('list.csv'):
        list(source.table(listed, ('name', 'label')))


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
            text = pipe.read()
        status = os.waitpid(child, 0)[1]
        if text == 'refused':
            raise UserError(text)
        if text != 'read':
            raise RuntimeError(text or f'status {status}')
        return
    try:
        main.parse(arguments)
        main.checked_config().to_json()
        text = 'read'
    except UserError:
        text = 'refused'
    except BaseException as error:
        text = f'{type(error).__name__}: {error}'
    os.write(theirs, text.encode('utf-8', 'replace')[:1000])
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
    from fer_jax.data.imaging import crop_folder
    from fer_jax.feature_cache import store as feature_store
    from fer_jax.runs import checksums, lock, metrics_log, model_file
    from fer_jax.runs import config as run_config

    run, step = folder / 'run', folder / 'run' / 'checkpoints' / '5'
    (step / 'model').mkdir(parents=True, exist_ok=True)
    (step / 'model' / 'x').write_bytes(b'x')
    places = ('config.json', 'writer.json', 'metrics.jsonl', 'crops.jsonl', 'checkpoints/model.json', 'x.json', 'x.bin')
    for name in (*places, 'checkpoints/5.manifest.json'):
        (run / name).write_bytes(data)
    lock.DEAD_SECONDS = 0.0  # a writer elsewhere is waited for so long
    config = json.loads(own_files()[3])

    def hold() -> None:
        with lock.workdir_lock(run):
            pass

    readers: list[Callable[[], Any]] = [
        lambda: model_file.read_spec(run),
        lambda: run_config.check_run_config(run, config),
        lambda: crop_folder._done(run / 'crops.jsonl', {'size': 8}),
        hold,
        lambda: checksums.find_damage(step),
        lambda: feature_store.FeatureFile(run / 'x.bin', (2, 3), np.dtype(np.float32), 'train').is_whole(),
        lambda: metrics_log.RecordFile(run / 'metrics.jsonl', 1).close(),
    ]
    for read in readers:
        with contextlib.suppress(UserError):
            read()


def arrays() -> list[bytes]:
    """Digests of files, and an index of a prepared set, as they are kept between runs."""
    members = []
    for name, array in {'stamps': np.array(['a-1-2-3', 'b-1-2-3']), 'digests': np.zeros((2, 32), np.uint8)}.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        members.append((f'{name}.npy', buffer.getvalue()))
    return [zip_of(members)]


def read_arrays(data: bytes, folder: Path) -> None:
    """The kept digests; damaged ones are made anew."""
    from fer_jax.data.sources import files

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
    **weight_targets.TARGETS,
    'overrides': Target(overrides, read_overrides, changes.change_flags),
    'own files': Target(own_files, read_own, changes.change_json),
    'own arrays': Target(arrays, read_arrays, changes.change_archive),
}
