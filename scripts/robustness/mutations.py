"""Ways to make a valid input malformed, by its bytes or by its structure; for scripts/robustness/fuzz.py."""

import csv
import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Random = np.random.Generator
Change = Callable[[Random, bytes], bytes]
TOKENS = (
    b'\0', b'"', b',', b'\n', b'\r', b'..', b'../../x', b'/', b'\xff\xfe', b'\xed\xa0\x80', b'nan', b'-1', b'1e999',
    b'9' * 400, b'1' * 5000, b'null', b'{}', b'[]', b'true', b'[' * 20000, b'{"a":' * 20000, b'x' * 200000, b'(' * 3000,
    b'cos\nsystem\n', b'R', b'b.', b'0', b'.', b'\x8a\xff', b'\x8e' + b'\xff' * 8, b'r\xff\xff\xff\x7f',
)  # fmt: skip
VALUES = (
    None, True, 0, -1, 1.5, 1 << 31, 1 << 63, 10**400, float('nan'), float('inf'), '', 'x', '\0', '\ud800', '../x',
    '9' * 500, [], {}, [[]], [None], {'x': 1}, [1, 2, 3], ['a'] * 1000,
)  # fmt: skip


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


def mutate(random: Random, valid: Sequence[bytes], rebuild: Change | None) -> bytes:
    """One input: a valid one, changed once or several times, by its structure or by its bytes."""
    data = valid[random.integers(len(valid))]
    if rebuild and random.random() < 0.6:
        data = rebuild(random, data)
        if random.random() < 0.8:
            return data
    for _ in range(random.geometric(0.5)):
        data = change(random, data, valid)
    return data


def change(random: Random, data: bytes, valid: Sequence[bytes]) -> bytes:
    """`data` with one change of its bytes."""
    start, to = sorted(random.integers(0, len(data) + 1, 2).tolist())
    near = min(to, start + int(random.integers(1, 17)))
    byte = bytes([random.choice([0, 1, 0x7F, 0x80, 0xFF, int(random.integers(256))])])
    number = struct.pack(random.choice(['<', '>']) + random.choice(['H', 'I', 'Q']), random.choice([0, 1, 255, 65535]))
    other = valid[random.integers(len(valid))]
    match random.integers(10):
        case 0:
            return (
                data[:start] + bytes([data[start] ^ 1 << int(random.integers(8))]) + data[start + 1 :]
                if data[start:]
                else data
            )
        case 1:
            return data[:start] + byte + data[start + 1 :]
        case 2:
            return data[:start] + number + data[start + len(number) :]
        case 3:
            return data[:start] + (b'\xff' * len(number)) + data[start + len(number) :]
        case 4:
            return data[:start] + data[near:]
        case 5:
            return data[:start] + data[start:near] * int(random.integers(2, 50)) + data[near:]
        case 6:
            return data[:to]
        case 7:
            return data[:start] + bytes(near - start) + data[near:]
        case 8:
            return data[:start] + other[len(other) * start // (len(data) + 1) :]
        case _:
            return data[:start] + TOKENS[random.integers(len(TOKENS))] + data[start:]


def change_json(random: Random, data: bytes) -> bytes:
    """Some line's JSON with one value, or one key, in another's place."""
    lines = data.decode().splitlines() if data.count(b'\n{') else [data.decode()]
    index = random.integers(len(lines))
    tree = json.loads(lines[index])
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(tree)
    value = VALUES[random.integers(len(VALUES))]
    if not places or random.random() < 0.1:
        tree = value
    else:
        node, key = places[random.integers(len(places))]
        match random.integers(4):
            case 0 if isinstance(node, dict):
                node[str(value)] = node.pop(key)
            case 1:
                del node[key]
            case _:
                node[key] = value
    lines[index] = json.dumps(tree)
    return '\n'.join(lines).encode('utf-8', 'surrogatepass')


def change_cells(random: Random, data: bytes) -> bytes:
    """A csv with a cell changed, added or taken."""
    rows = list(csv.reader(io.StringIO(data.decode('utf-8', 'surrogateescape'))))
    cells = rows[random.integers(len(rows))]
    index = int(random.integers(len(cells)))
    match random.integers(4):
        case 0:
            cells.insert(index, cells[index])
        case 1:
            del cells[index]
        case _:
            cells[index] = str(VALUES[random.integers(len(VALUES))])[:1000]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode('utf-8', 'surrogatepass')


def change_flags(random: Random, data: bytes) -> bytes:
    """Flags, one a line, of which one has another value."""
    lines = data.split(b'\n')
    index = int(random.integers(len(lines)))
    value = VALUES[random.integers(len(VALUES))]
    text = value if isinstance(value, str) else repr(value)
    lines[index] = lines[index].partition(b'=')[0] + b'=' + text.encode('utf-8', 'surrogatepass')
    return b'\n'.join(lines)


def change_png(random: Random, data: bytes) -> bytes:
    """A PNG with one chunk changed, and its checksum right."""
    if data[:4] != b'\x89PNG':
        return change(random, data, [data])
    chunks, position = [], 8
    while position < len(data):
        length = int.from_bytes(data[position : position + 4])
        chunks.append((data[position + 4 : position + 8], data[position + 8 : position + 8 + length]))
        position += 12 + length
    which = random.integers(len(chunks))
    kind, body = chunks[which]
    if kind == b'IHDR':
        sides = [int(random.choice([0, 1, 16, 1 << 14, 1 << 16, (1 << 31) - 1])) for _ in range(2)]
        body = (
            struct.pack('>II', *sides) + bytes([int(random.choice([1, 2, 4, 8, 16])), random.integers(8)]) + body[10:]
        )
    elif kind == b'IDAT' and random.random() < 0.7:
        body = zlib.compress(change(random, zlib.decompress(body), [body]))
    else:
        body = change(random, body, [body])
    chunks[which] = kind, body
    return data[:8] + b''.join(
        struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body)) for kind, body in chunks
    )


def change_archive(random: Random, data: bytes, inner: Change | None = None) -> bytes:
    """A zip, tar or gz with one member changed, renamed or taken twice; all else by its bytes."""
    inner = inner or (lambda random, body: change(random, body, [body]))
    if data[:2] == b'PK':
        with zipfile.ZipFile(io.BytesIO(data)) as old:
            members = [(name, old.read(name)) for name in old.namelist()]
        return zip_of(changed_members(random, members, inner), packed=random.random() < 0.5)
    if data[:2] == b'\x1f\x8b':
        return gzip.compress(change_archive(random, gzip.decompress(data), inner), 1, mtime=0)
    if data[257:262] == b'ustar':
        with tarfile.open(fileobj=io.BytesIO(data)) as old_tar:
            members = [(info.name, old_tar.extractfile(info).read()) for info in old_tar if info.isreg()]  # type: ignore[union-attr]
        return tar_of(changed_members(random, members, inner))
    return inner(random, data)


def changed_members(random: Random, members: list[tuple[str, bytes]], inner: Change) -> list[tuple[str, bytes]]:
    which = int(random.integers(len(members)))
    name, body = members[which]
    match random.integers(6):
        case 0:
            return members[:which] + members[which + 1 :]
        case 1:
            return [*members, (f'../{name}', body)]
        case _:
            return members[:which] + [(name, inner(random, body))] + members[which + 1 :]


def change_safetensors(random: Random, data: bytes) -> bytes:
    """A safetensors file, or an archive of torch's, with one value of its header, or its pickle, changed."""
    if data[8:9] != b'{':
        return change_archive(random, data)
    length = int.from_bytes(data[:8], 'little')
    header = change_json(random, data[8 : 8 + length])
    return struct.pack('<Q', len(header)) + header + data[8 + length :]


def zip_of(members: Sequence[tuple[str, bytes]], *, packed: bool = False) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, 'w', zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, body in members:
            archive.writestr(zipfile.ZipInfo(name), body, archive.compression)  # of the year 1980, in every run
    return made.getvalue()


def tar_of(members: Sequence[tuple[str, bytes]]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode='w') as tar:
        for name, body in members:
            info = tarfile.TarInfo(name[:90])
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    return made.getvalue()
