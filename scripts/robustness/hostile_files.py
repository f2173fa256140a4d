"""Tables, archives, folders, weights, configs, requests and videos made to harm, for hostile_input.py.

Each case is made below an empty folder and gives what its door takes: a path, flags, or a request.
"""

import gzip
import json
import os
import pickle
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from scripts.robustness import hostile_images
from scripts.robustness.hostile_images import IMAGES, MEGABYTE, bomb, png

Make = Callable[[Path], Any]
Block = bytes | Callable[[], Iterator[bytes]]
SMALL = png(16, 16)


class Case(NamedTuple):
    """A hostile input: its kind, which names the door, its name, and what makes it in an empty folder."""

    kind: str
    name: str
    make: Make


def many(block: bytes, count: int) -> Callable[[], Iterator[bytes]]:
    """Returns what yields a block many times, in pieces of about a megabyte."""
    piece = max(1, MEGABYTE // len(block))

    def pieces() -> Iterator[bytes]:
        for _ in range(count // piece):
            yield block * piece
        yield block * (count % piece)

    return pieces


def content(blocks: Iterable[Block]) -> Iterator[bytes]:
    """Yields the bytes of blocks."""
    for block in blocks:
        if isinstance(block, bytes):
            yield block
        else:
            yield from block()


def written(name: str, *blocks: Block) -> Make:
    """Returns a maker of one file."""

    def make(folder: Path) -> Path:
        with (folder / name).open('wb') as file:
            file.writelines(content(blocks))
        return folder / name

    return make


def special(name: str, kind: str) -> Make:
    """Returns a maker of something that is no regular file, or has no end worth reading."""

    def make(folder: Path) -> Path:
        path = folder / name
        match kind:
            case 'FIFO':
                os.mkfifo(path)
            case 'socket':
                os.chdir(folder)  # a socket's path has at most 108 bytes
                socket.socket(socket.AF_UNIX).bind(name)
            case 'folder':
                path.mkdir()
            case 'sparse file of 1 TB':
                path.touch()
                os.truncate(path, 1 << 40)
            case 'link to itself':
                path.symlink_to(path)
            case _:
                path.symlink_to(kind)
        return path

    return make


SPECIAL = ('/dev/zero', '/dev/urandom', 'FIFO', 'socket', 'folder', 'sparse file of 1 TB', 'link to itself')
NAMES = {
    'photo': 'x.png', 'manifest': 'x.csv', 'weights': 'x.pth', 'keras': 'x.h5', 'matlab': 'x.mat', 'boxes': 'x.csv',
    'predictions': 'x.csv', 'archive': 'x.zip', 'fer2013': 'fer2013.csv', 'video': 'x.mp4', 'config': 'x.py',
    'converted': 'x.safetensors', 'json': 'x.json', 'arrays': 'x.npz',
}  # fmt: skip


def lines_of(head: str, row: Callable[[int], str], count: int) -> Make:
    """Returns a maker of a csv of many rows."""

    def make(folder: Path) -> Path:
        with (folder / 'x.csv').open('w') as file:
            file.write(head)
            file.writelines(map(row, range(count)))
        return folder / 'x.csv'

    return make


def manifest_of_specials(folder: Path) -> Path:
    for kind in SPECIAL:
        special(f'{kind.replace("/", "_")}.png', kind)(folder)
    rows = [f'{path.name},{"ab"[index % 2]}' for index, path in enumerate(folder.iterdir())]
    (folder / 'x.csv').write_text('\n'.join(['path,label', '/dev/zero,a', '/proc/kmsg,b', '/dev/stdin,a', *rows]))
    return folder / 'x.csv'


TABLES: dict[str, Make] = {
    '100,000 columns': lines_of(','.join(f'p_{index}' for index in range(100_000)) + '\n', lambda n: 'x\n', 9),
    '1,000 columns twice over': lines_of(('path,' * 900) + 'label\n', lambda n: 'x\n', 9),
    'a line of 100 MB': written('x.csv', b'path,label\n', many(b'x', 100 * MEGABYTE)),
    '100 MB of NULs': written('x.csv', b'path,label\n', many(b'\0', 100 * MEGABYTE)),
    '100 MB of empty lines': written('x.csv', b'path,label\n', many(b'\n', 100 * MEGABYTE)),
    '3,000,000 wrong rows': lines_of('path,label\n', lambda n: 'x\n', 3_000_000),
    '1,900,000 wrong rows': lines_of('path,label\n', lambda n: ',x\n', 1_900_000),
    'one path 1,900,000 times': lines_of('path,label\n', lambda n: 'x.png,a\n', 1_900_000),
    '1,000 classes in 40,000 rows': lines_of(
        'path,' + ','.join(f'p_{n}' for n in range(990)) + '\n', lambda n: f'{n}.png{",1" * 990}\n', 40_000
    ),
    'a path of 1 MB among 200,000': lines_of(
        'path,label\n', lambda n: f'{"x" * (1_000_000 if n == 9 else 9)}{n}.png,a\n', 200_000
    ),
    'a subject of 900 characters among 400,000': lines_of(
        'path,label,subject\n', lambda n: f'{n}.png,a,{"s" * 900 if n == 9 else ""}\n', 400_000
    ),
    'an open quote of 100 MB': written('x.csv', b'path,label\n"', many(b'x\n', 50 * MEGABYTE)),
    'a weight of 1,000,000 digits': written('x.csv', b'path,label,weight\na.png,b,', many(b'9', 1_000_000)),
    'UTF-16 of 100 MB': written('x.csv', 'path,label\n'.encode('utf-16'), many(b'\0\xd8', 50 * MEGABYTE)),
    'special files': manifest_of_specials,
    'jsonl nested 100,000 deep': written('x.jsonl', b'{"path": ', b'[' * 100_000),
    'jsonl nested 900 deep': written('x.jsonl', b'{"path": "a", "subject": ' + b'[' * 900 + b']' * 900 + b'}\n'),
    'jsonl of an integer of 1,000,000 digits': written(
        'x.jsonl', b'{"path": "a", "weight": ', many(b'9', 1_000_000), b'}'
    ),
    'jsonl of a class a row': lambda folder: written(
        'x.jsonl', *(b'{"path": "%d", "label": {"c%d": 1, "d": 2}}\n' % (n, n) for n in range(50_000))
    )(folder),
    'jsonl of 100,000 votes a row': lambda folder: written(
        'x.jsonl',
        *(
            b'{"path": "%d", "label": {' % n + b','.join(b'"%d":1' % m for m in range(90_000)) + b'}}\n'
            for n in range(50)
        ),
    )(folder),
}
BOXES: dict[str, Make] = {
    '100,000 columns': lines_of(','.join(map(str, range(100_000))) + '\n', lambda n: 'x\n', 9),
    '3,000,000 rows': lines_of('file,x,y,width,height\n', lambda n: 'a,1,1,1,1\n', 3_000_000),
    'a line of 100 MB': written('x.csv', b'file,x,y,width,height\n', many(b'x', 100 * MEGABYTE)),
    'a frame of 1,000,000 digits': written('x.csv', b'file,x,y,width,height,frame\na,1,1,1,1,', many(b'9', 1_000_000)),
    'boxes of 1e308': written('x.csv', b'file,x,y,width,height\na,1e308,-1e308,1e308,1e308\n'),
}
PREDICTIONS: dict[str, Make] = {
    '100,000 columns': lines_of(','.join(map(str, range(100_000))) + '\n', lambda n: 'x\n', 9),
    '900 columns, 1,900,000 short rows': lines_of(
        'id,a,b,' + ','.join(map(str, range(900))) + '\n', lambda n: f'{n},1,1\n', 1_900_000
    ),
    'a line of 100 MB': written('x.csv', b'id,a,b\n', many(b'x', 100 * MEGABYTE)),
}


def zipped(*members: tuple[str, *tuple[Block, ...]], packed: bool = True) -> Make:
    """Returns a maker of a zip of members (name, blocks)."""

    def make(folder: Path) -> Path:
        kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
        with zipfile.ZipFile(folder / 'x.zip', 'w', kind, compresslevel=1) as archive:
            for name, *blocks in members:
                with archive.open(name, 'w', force_zip64=True) as file:
                    file.writelines(content(blocks))
        return folder / 'x.zip'

    return make


def zip_of_many(count: int) -> Make:
    return lambda folder: zipped(*((f'{n}.png', b'') for n in range(count)), packed=False)(folder)


def tar_header(name: str, size: int, kind: bytes = b'0', link: str = '') -> bytes:
    """Returns the header of a member of a tar."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info.tobuf(tarfile.GNU_FORMAT)


def packed_stream(megabytes: int, head: bytes = b'', block: bytes = bytes(MEGABYTE)) -> Block:
    """Returns what yields a gzip that unpacks to many blocks."""

    def pieces() -> Iterator[bytes]:
        packer = zlib.compressobj(1, wbits=31)
        yield packer.compress(head)
        for _ in range(megabytes):
            yield packer.compress(block)
        yield packer.flush()

    return pieces


LINKS = [
    tar_header('a.png', 0, tarfile.SYMTYPE, '/etc/passwd'), tar_header('b.png', 0, tarfile.LNKTYPE, '../../etc/passwd'),
    tar_header('/etc/c.png', 0), tar_header('../../d.png', 0), tar_header('e.png', 0, tarfile.CHRTYPE),
    tar_header('f.png', 0, tarfile.FIFOTYPE), tar_header('g.png', 0, tarfile.BLKTYPE),
]  # fmt: skip
ROW = b'0,' + b'0 ' * 2304 + b',Training\n'
ARCHIVES: dict[str, Make] = {
    'tar.gz of a file of 8 GB': written('x.tar.gz', packed_stream(2000, tar_header('a.png', 8000 * MEGABYTE))),
    'tar.gz of 2,000,000 members': written('x.tar.gz', packed_stream(1000, b'', tar_header('a.png', 0) * 2048)),
    'tar of 400,000 members': written('x.tar', many(tar_header('a.png', 0), 400_000)),
    'tar of links, devices and absolute paths': written('x.tar', *LINKS, bytes(1024)),
    'tar of a claim of 8 EB': written('x.tar', tar_header('a.png', (1 << 62)), bytes(1024)),
    'tar.gz whose name has 100 MB': written(
        'x.tar.gz', packed_stream(100, tar_header('././@LongLink', 100 * MEGABYTE, b'L'), b'x' * MEGABYTE)
    ),
    'tar.gz of a sparse map without end': written(
        'x.tar.gz', packed_stream(100, tar_header('a', 100 * MEGABYTE, b'S'), b'1' * MEGABYTE)
    ),
    'gzip of 3,000,000 empty members': written('x.tar.gz', many(gzip.compress(b'', mtime=0), 3_000_000)),
    'zip of a file of 1.5 GB': zipped(('a.png', many(b'\0', 1500 * MEGABYTE))),
    'zip of 65,000 empty files': zip_of_many(65_000),
    'zip of 400,000 empty files': zip_of_many(400_000),
    'zip of a list of 1.2 GB': zipped(('list_eval_partition.txt', many(b'a 0\n', 300 * MEGABYTE))),
    'zip in a zip': lambda folder: zipped(*((f'{n}.zip', b'PK\5\6' + bytes(18)) for n in range(99)))(folder),
}
FER2013: dict[str, Make] = {
    'csv.gz of 300,000 rows': written('fer2013.csv.gz', packed_stream(1500, b'emotion,pixels,Usage\n', ROW * 220)),
    'csv.gz of empty lines': written(
        'fer2013.csv.gz', packed_stream(1500, b'emotion,pixels,Usage\n', b'\n' * MEGABYTE)
    ),
    'csv in a zip of empty lines': zipped(('fer2013.csv', b'emotion,pixels,Usage\n', many(b'\n', 1200 * MEGABYTE))),
    'a csv of 80,000 rows': written('fer2013.csv', b'emotion,pixels,Usage\n', many(ROW, 80_000)),
}


def folder_with(*links: tuple[str, str]) -> Make:
    """Returns a maker of class folders with links in them; {} stands for the folder."""

    def make(folder: Path) -> Path:
        for name in 'ab':
            (folder / name).mkdir()
            for index in range(3):
                (folder / name / f'{index}.png').write_bytes(SMALL + bytes([index]))
        for name, target in links:
            (folder / name).symlink_to(target.replace('{}', str(folder)))
        return folder

    return make


def deep_folder(folder: Path) -> Path:
    path = folder_with()(folder) / 'a'
    os.chdir(path)
    for _ in range(2_000):
        os.mkdir('x' * 50)
        os.chdir('x' * 50)
    return folder


def folder_of_specials(folder: Path) -> Path:
    folder_with()(folder)
    for kind in SPECIAL:
        special(f'a/{kind.replace("/", "_")}.png', kind)(folder)
    return folder


FOLDERS: dict[str, Make] = {
    'links in a circle': folder_with(('a/x', '{}'), ('a/y', '{}/b'), ('b/y', '{}/a'), ('b/z', '.')),
    'a link to /': folder_with(('a/x', '/')),
    'a link to /proc': folder_with(('a/x', '/proc')),
    'a link to /usr': folder_with(('a/x', '/usr')),
    'links to /sys, /dev and /etc': folder_with(('a/x', '/sys'), ('a/y', '/dev'), ('b/x', '/etc')),
    '2,000 folders in each other': deep_folder,
    'special files among the images': folder_of_specials,
}


def weights(*blocks: Block) -> Make:
    return written('x.pth', b'\x80\4', *blocks, b'.')


def nested(depth: int, opcode: bytes) -> bytes:
    """Returns opcodes of containers in containers, each held twice by the next: 2 ** depth in all."""
    level = b'h\0h\0' + opcode + b'q\0' + b'0'
    return b')q\0' + b'0' + level * depth + b'h\0'


def torch_zip(data: Block, *more: tuple[str, Block]) -> Make:
    return zipped(('x/data.pkl', data), ('x/version', b'3'), *more)


def packed_again(folder: Path) -> Path:
    data = b''.join(content([packed_stream(500)]))
    for _ in range(4):
        data = gzip.compress(data)
    return written('x.pth.gz', data)(folder)


WEIGHTS: dict[str, Make] = {
    'tuples of tuples for a key': weights(b'}' + nested(60, pickle.TUPLE2) + b'Ns'),
    'tuples of tuples': weights(nested(60, pickle.TUPLE2)),
    'frozen sets of tuples': weights(nested(40, pickle.TUPLE3[:0] + pickle.TUPLE2) + b'\x91'),
    'a bytearray of 3 GB claimed': weights(pickle.BYTEARRAY8 + (3 << 30).to_bytes(8, 'little')),
    'a text of 3 GB claimed': weights(pickle.BINUNICODE8 + (3 << 30).to_bytes(8, 'little')),
    'bytes of 2^63 claimed': weights(pickle.BINBYTES8 + (1 << 63).to_bytes(8, 'little')),
    'a memo of 2^31': weights(b'Nr\xff\xff\xff\x7f'),
    'a frame of 2^60': weights(b'\x95' + (1 << 60).to_bytes(8, 'little')),
    'an integer of 100,000,000 digits': weights(b'I', many(b'9', 100_000_000), b'\n'),
    'a float of 10,000,000 digits': weights(b'F', many(b'9', 10_000_000), b'\n'),
    '50,000,000 opcodes': weights(many(b'N0', 25_000_000)),
    '100,000 lists in each other': weights(b']' * 100_000 + b'a' * 99_999),
    'a name of 200 MB': weights(b'c', many(b'x', 200 * MEGABYTE), b'\nx\n'),
    'zip of a pickle of 1.2 GB': torch_zip(many(b'N', 1200 * MEGABYTE)),
    'zip of 1.2 GB beside': torch_zip(b'\x80\2}.', ('x/data/0', many(b'\0', 1200 * MEGABYTE))),
    'zip of 400,000 members': zip_of_many(400_000),
    'gzip of 2 GB': written('x.pth.gz', packed_stream(2000)),
    'gzip in gzip in gzip in gzip': packed_again,
    'pickled arrays of 2^40 claimed': weights(
        b'cnumpy\nndarray\n(cnumpy.core.multiarray\n_reconstruct\n(\x8a\6\0\0\0\0\0\1tR.'
    ),
}


def matlab(count: int, megabytes: int) -> Make:
    """Returns a maker of a MATLAB file of variables that inflate."""

    def make(folder: Path) -> Path:
        packed = bomb(megabytes)
        block = struct.pack('<II', 15, len(packed)) + packed
        return written('x.mat', MATLAB_HEAD, many(block, count))(folder)

    return make


MATLAB_HEAD = b'MATLAB 5.0 MAT-file'.ljust(124) + b'\0\1IM'
MATLAB: dict[str, Make] = {
    'a variable that inflates to 1.5 GB': matlab(1, 1500),
    '1,000 variables of 100 MB': matlab(1000, 100),
    'a matrix of 2^31 claimed': written('x.mat', MATLAB_HEAD, struct.pack('<II', 14, (1 << 31) - 8), bytes(64)),
}


def keras(change: Callable[[Any], None], name: str = 'x.h5') -> Make:
    """Returns a maker of an HDF5 file."""

    def make(folder: Path) -> Path:
        import h5py

        with h5py.File(folder / name, 'w') as file:
            change(file)
        return folder / name

    return make


def inflating(file: Any) -> None:
    options = {'shape': (30_000, 30_000), 'dtype': 'f4', 'chunks': (3_000, 3_000), 'compression': 'gzip'}
    file.create_dataset('layers/a/vars/0', **options)
    file['layers/a/vars'].attrs['name'] = 'a'


def many_groups(file: Any) -> None:
    for number in range(30_000):
        file.create_group(f'layers/{number}')


def deep_groups(file: Any) -> None:
    file.create_group('layers/' + '/'.join(['a'] * 2_000))


def circular(file: Any) -> None:
    import h5py

    file.create_group('layers/a')
    file['layers/a/b'] = h5py.SoftLink('/layers')
    file['layers/c'] = h5py.ExternalLink('/dev/zero', '/')


KERAS: dict[str, Make] = {
    'an array of 3.6 GB that is not stored': keras(inflating),
    '30,000 groups': keras(many_groups),
    '2,000 groups in each other': keras(deep_groups),
    'links in a circle, and to /dev/zero': keras(circular),
    '100 MB behind the signature': written('x.h5', b'\x89HDF\r\n\x1a\n', many(b'\xff', 100 * MEGABYTE)),
    '.keras of 1.5 GB': zipped(('model.weights.h5', many(b'\0', 1500 * MEGABYTE))),
}


def deep_metadata(folder: Path) -> Path:
    metadata = {'format': '1', 'model': 'a', 'source': 'b', 'preprocessing': '[' * 99_999}
    head = json.dumps({'__metadata__': metadata}).encode()
    return written('x.safetensors', struct.pack('<Q', len(head)), head)(folder)


CONVERTED: dict[str, Make] = {
    'a header of 2^63 claimed': written('x.safetensors', struct.pack('<Q', (1 << 63) - 1), b'{'),
    'a header of 90 MB': written('x.safetensors', struct.pack('<Q', 90_000_000), b'{', many(b' ', 90_000_000)),
    'a header nested 1,000,000 deep': written('x.safetensors', struct.pack('<Q', 9_000_000), many(b'{"a":', 1_800_000)),
    'tensors of 2^60 claimed': written(
        'x.safetensors',
        struct.pack('<Q', 67),
        b'{"a":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}}'[:67],
    ),
    'metadata of deep JSON': deep_metadata,
}  # fmt: skip
JSON: dict[str, Make] = {
    'nested 10,000,000 deep': written('x.json', many(b'[', 10_000_000)),
    '200 MB of empty lists': written('x.json', b'[', many(b'[],', 66 * MEGABYTE), b'[]]'),
    'an integer of 60,000,000 digits': written('x.json', many(b'9', 60_000_000)),
    'a text of 300 MB': written('x.json', b'"', many(b'x', 100 * MEGABYTE), b'"'),
}


def npz(claimed: int, body: Block) -> Make:
    """Returns a maker of an npz file of one array of `claimed` numbers."""
    head = str({'descr': '<f4', 'fortran_order': False, 'shape': (claimed,)}).encode().ljust(117) + b'\n'
    start = b'\x93NUMPY\1\0' + struct.pack('<H', len(head)) + head
    return lambda folder: zipped(('a.npy', start, body))(folder).rename(folder / 'x.npz')


ARRAYS: dict[str, Make] = {
    '2^40 numbers claimed': npz(1 << 40, b''),
    'zeros of 1.5 GB': npz(375 * MEGABYTE, many(b'\0', 1500 * MEGABYTE)),
    'no numbers': npz(1, b''),
    '200,000 members': lambda folder: zip_of_many(200_000)(folder).rename(folder / 'x.npz'),
}


def mp4_box(kind: bytes, body: bytes) -> bytes:
    return struct.pack('>I', len(body) + 8) + kind + body


def film(change: Callable[[bytes], bytes]) -> Make:
    """Returns a maker of a changed film of ten frames."""

    def make(folder: Path) -> Path:
        import numpy as np

        from fer_jax.inference import video

        writer = video.Writer(folder / 'x.mp4', (64, 64), 25)
        for number in range(10):
            writer.add(np.full((64, 64, 3), number, np.uint8), number / 25)
        writer.close()
        (folder / 'x.mp4').write_bytes(change((folder / 'x.mp4').read_bytes()))
        return folder / 'x.mp4'

    return make


def claimed_size(data: bytes) -> bytes:
    place = data.index(b'avc1') + 28
    return data[:place] + b'\xff\xff\xff\xff' + data[place + 4 :]


def claimed_samples(data: bytes) -> bytes:
    for kind, place in ((b'stts', 8), (b'stsz', 4)):
        at = data.index(kind) + 4 + place
        data = data[:at] + struct.pack('>I', 1 if kind == b'stsz' else 100_000_000) + data[at + 4 :]
    at = data.index(b'stsz') + 12
    return data[:at] + struct.pack('>I', 100_000_000) + data[at + 4 :]


def many_streams(data: bytes) -> bytes:
    moov = data.index(b'moov') - 4
    size = struct.unpack_from('>I', data, moov)[0]
    body = data[moov + 8 : moov + size]
    trak = body.index(b'trak') - 4
    track = body[trak : trak + struct.unpack_from('>I', body, trak)[0]]
    return data[:moov] + mp4_box(b'moov', body + track * 20_000) + data[moov + size :]


def sparse_stream(folder: Path) -> Path:
    path = written('x.mpg', b'\0\0\1\xba' + bytes(100))(folder)
    os.truncate(path, 1 << 40)
    return path


NESTED_BOX, AVI_HEAD = b'\x7f\0\0\0moov', b'RIFF\xff\xff\xff\x7fAVI LIST\xff\xff\xff\x7fhdrl'
VIDEOS: dict[str, Make] = {
    'frames of 65,535 px squared claimed': film(claimed_size),
    '100,000,000 samples claimed': film(claimed_samples),
    '20,000 tracks': film(many_streams),
    'an MPEG stream, sparse, of 1 TB': sparse_stream,
    '200 MB of transport packets of nothing': written('x.ts', many(b'G\x1f\xff\x10' + bytes(184), 1_000_000)),
    '200 MB of boxes': written('x.mp4', mp4_box(b'ftyp', b'isom' * 4), many(mp4_box(b'free', b''), 25_000_000)),
    '1,000,000 boxes in each other': written('x.mp4', mp4_box(b'ftyp', b'isom' * 4), many(NESTED_BOX, 1_000_000)),
    'an AVI of 2^31 frames claimed': written('x.avi', AVI_HEAD + b'\xff' * 5_000),
    'a playlist of itself': written('x.mkv', b'#EXTM3U\n#EXTINF:1,\nx.mkv\n' * 10_000),
}  # fmt: skip


def flags(*given: str) -> Make:
    return lambda folder: ['--config=configs/quickstart.py', *given]


CONFIGS: dict[str, Make] = {
    given[:70]: flags(given)
    for given in (
        '--config.phases[0].epochs=1e300', '--config.phases[0].epochs=inf', '--config.phases[0].learning_rate=nan',
        '--config.checkpoint.every=1e-12', '--config.parallel.devices=1000000', '--config.model.image_size=1000000000',
        '--config.model.image_size=1e9', '--config.phases={"a": 1}', '--config.items=1', '--config.to_json=1',
        '--config.joint.items.weight=1', '--config.phases[99999999999].epochs=1',
        '--config.data.drop_classes=' + '(' * 90_000,
        '--config.data.drop_classes=' + '-' * 90_000 + '1', '--config.seed=' + '9' * 90_000, '--' + 'z' * 90_000,
        '--config.' + 'a.' * 40_000 + 'b=1', '--config.data.dir=' + 'x' * 120_000, '--seeds=' + '1,' * 60_000 + '1',
        '--config.phases[0].rates=(("((a{999}){999}){999}", 1.0),)', '--config.data.subject=' + '(' * 100_000,
    )
}  # fmt: skip


def request(kind: str, body: Callable[[], bytes]) -> Make:
    def make(folder: Path) -> tuple[str, Path]:
        return kind, written('body', body())(folder)

    return make


FULL = 20 * MEGABYTE - 4_000
FORM, PART = 'multipart/form-data; boundary=x', b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n'
REQUESTS: dict[str, Make] = {
    'JSON nested': request('application/json', lambda: b'{"pictures":' + b'[' * FULL),
    'JSON of 6,000,000 objects': request('application/json', lambda: b'{"pictures":[' + b'{},' * (FULL // 3) + b'1]}'),
    'JSON of 1,500,000 keys': request(
        'application/json', lambda: b'{"a":[],' + b','.join(b'"%d":[]' % n for n in range(FULL // 14)) + b'}'
    ),
    'JSON of an integer': request('application/json', lambda: b'{"pictures":' + b'9' * FULL + b'}'),
    'JSON of spaces': request('application/json', lambda: b'{"pictures":["' + b'A ' * (FULL // 2) + b'"]}'),
    'JSON of escapes': request('application/json', lambda: b'{"pictures":["' + b'\\u0041' * (FULL // 6) + b'"]}'),
    'form of 2,000,000 parts': request(FORM, lambda: b'--x\r\n\r\n\r\n' * (FULL // 9) + b'--x--'),
    'form of a part of 5,000,000 headers': request(FORM, lambda: b'--x\r\n' + b'a:\r\n' * (FULL // 4) + b'\r\n--x--'),
    'form of 5,000,000 almost ends': request(FORM, lambda: PART + b'\r\n--' * (FULL // 4) + b'\r\n--x--'),
    'form of a name of 20 MB': request(FORM, lambda: PART[:-20] + b'a' * FULL + b'"\r\n\r\nx\r\n--x--'),
    **{name: request('image/png', lambda made=IMAGES[name]: made()[:FULL]) for name in (
        'GIF of 50 MB of comment', 'JPEG of 300 scans, 1,500 px', 'JPEG of 100,000 scans, 10,000 px',
        'JPEG of 5,000,000 markers', 'TIFF whose tags overlap', 'PNG of 10,000 x 9,999, RGBA',
        'PNG of 2,000,000 chunks',
        'PPM whose comment has 200 MB', 'WebP of 16,384 px squared claimed', 'BMP of 50,000,000 jumps',
    )},
    'a picture of 39 megapixels of floats': request(
        'image/tiff', lambda: hostile_images.saved('TIFF', 'F', (6_000, 6_500), compression='tiff_deflate')
    ),
}  # fmt: skip


def image(name: str) -> Make:
    def make(folder: Path) -> Path:
        return written('x.png', IMAGES[name]())(folder)

    return make


def in_class_folder(name: str) -> Make:
    def make(folder: Path) -> Path:
        folder_with()(folder)
        (folder / 'a' / 'x.png').write_bytes(IMAGES[name]())
        return folder

    return make


SOME_IMAGES = (
    'PNG of 60,000 x 1', 'GIF of 50 MB of comment', 'JPEG of 100,000 scans, 10,000 px', 'TIFF whose tags overlap',
    'PPM whose comment has 200 MB', 'PNG of 10,000 x 9,999, RGBA',
)  # fmt: skip


def cases() -> list[Case]:
    """Returns all hostile inputs."""
    tables = {
        'manifest': TABLES, 'boxes': BOXES, 'predictions': PREDICTIONS, 'archive': ARCHIVES, 'fer2013': FER2013,
        'data folder': FOLDERS, 'weights': WEIGHTS, 'matlab': MATLAB, 'keras': KERAS, 'converted': CONVERTED,
        'json': JSON, 'arrays': ARRAYS, 'video': VIDEOS, 'flags': CONFIGS, 'request': REQUESTS,
    }  # fmt: skip
    listed = [Case('image', name, image(name)) for name in IMAGES]
    listed += [Case(kind, name, in_class_folder(name) if kind == 'data folder' else image(name))
               for kind in ('data folder', 'photo', 'examination') for name in SOME_IMAGES]  # fmt: skip
    listed += [Case(kind, name, make) for kind, makers in tables.items() for name, make in makers.items()]
    return listed + [Case(kind, what, special(name, what)) for kind, name in NAMES.items() for what in SPECIAL]
