"""Images made to take time or memory without end, for scripts/robustness/hostile_input.py."""

import functools
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

Maker = Callable[[], bytes]
MEGABYTE = 1 << 20


def saved(kind: str, mode: str, size: tuple[int, int], **options: Any) -> bytes:
    """Returns an image of one colour, encoded by Pillow."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    """Returns a chunk of a PNG with its checksum."""
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def png(
    width: int,
    height: int,
    *,
    depth: int = 8,
    colour: int = 2,
    interlaced: int = 0,
    rows: bytes = b'',
    more: bytes = b'',
) -> bytes:
    """Returns a PNG of zeros, or of `rows`, with `more` chunks before its pixels."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    packer = zlib.compressobj(9)
    line, packed = bytes(1 + (width * bits + 7) // 8), []
    for _ in range(0 if rows else height):
        packed.append(packer.compress(line))
    packed += [packer.compress(rows), packer.flush()]
    header = struct.pack('>IIBBBBB', width, height, depth, colour, 0, 0, interlaced)
    palette = chunk(b'PLTE', bytes(768)) if colour == 3 else b''
    body = chunk(b'IHDR', header) + palette + more + chunk(b'IDAT', b''.join(packed)) + chunk(b'IEND', b'')
    return b'\x89PNG\r\n\x1a\n' + body


def bomb(megabytes: int) -> bytes:
    """Returns zeros, packed by zlib."""
    packer = zlib.compressobj(1)
    packed = [packer.compress(bytes(MEGABYTE)) for _ in range(megabytes)]
    return b''.join([*packed, packer.flush()])


def header_png(width: int, height: int) -> bytes:
    """Returns a PNG that claims a size and has no pixels."""
    header = struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', b'') + chunk(b'IEND', b'')


def segment(marker: int, body: bytes) -> bytes:
    """Returns a segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack('>H', len(body) + 2) + body


def scans(count: int, side: int) -> bytes:
    """Returns a progressive JPEG whose last scan is there again and again."""
    from PIL import Image

    buffer = io.BytesIO()
    levels = np.random.default_rng(0).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(levels).save(buffer, 'JPEG', progressive=True, quality=30)
    data = buffer.getvalue()
    first, last = data.index(b'\xff\xda'), data.rindex(b'\xff\xda')
    begin = data.rfind(b'\xff\xc4', first, last)
    end = data.rindex(b'\xff\xd9')
    return data[:end] + data[begin:end] * count + data[end:]


def empty_scans(count: int, width: int, height: int) -> bytes:
    """Returns a progressive JPEG of many scans that hold nothing."""
    frame = segment(0xC2, struct.pack('>BHHB', 8, height, width, 1) + bytes([1, 0x11, 0]))
    tables = segment(0xDB, bytes([0]) + bytes([1] * 64)) + segment(0xC4, bytes([0x00, 1, *[0] * 15, 0]))
    tables += segment(0xC4, bytes([0x10, 1, *[0] * 15, 0]))
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + b'\0'
    return (
        b'\xff\xd8' + tables + frame + first + (segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + b'\0') * count + b'\xff\xd9'
    )


def jpeg_with(middle: bytes, size: tuple[int, int] = (32, 32)) -> bytes:
    """Returns a JPEG with further bytes behind its first marker."""
    data = saved('JPEG', 'RGB', size)
    return data[:2] + middle + data[2:]


def tiff(entries: list[tuple[int, int, int, int]], more: bytes = b'', next_at: int = 0) -> bytes:
    """Returns a TIFF of entries (tag, type, count, value or offset)."""
    body = b''.join(struct.pack('<HHII', *entry) for entry in entries)
    return b'II*\0' + struct.pack('<IH', 8, len(entries)) + body + struct.pack('<I', next_at) + more


def plain_tiff(width: int, height: int, compression: int = 1, strips: int = 1) -> list[tuple[int, int, int, int]]:
    """Returns the entries of a grey TIFF."""
    return [
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1),
        (273, 4, strips, 8), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, strips, 8),
    ]  # fmt: skip


def overlapping_tags(count: int, size: int) -> bytes:
    """Returns a TIFF in which many tags claim the same bytes."""
    entries = plain_tiff(16, 16) + [(40000 + tag, 7, size, 8) for tag in range(count)]
    return tiff(entries, bytes(size))


def gif(width: int, height: int, blocks: bytes) -> bytes:
    """Returns a GIF with blocks before its image."""
    head = b'GIF89a' + struct.pack('<HHBBB', width, height, 0x80, 0, 0) + bytes(6)
    image = b',' + struct.pack('<HHHHB', 0, 0, width, height, 0) + bytes([2, 2, 0x4C, 1, 0]) + b';'
    return head + blocks + image


def bmp(width: int, height: int, compression: int, body: bytes) -> bytes:
    """Returns a BMP of 8 bits."""
    info = struct.pack('<IiiHHIIiiII', 40, width, height, 1, 8, compression, len(body), 0, 0, 256, 0)
    offset = 14 + 40 + 1024
    return b'BM' + struct.pack('<IHHI', offset + len(body), 0, 0, offset) + info + bytes(1024) + body


def frames(kind: str, count: int, side: int) -> bytes:
    """Returns an image of many frames."""
    from PIL import Image

    buffer = io.BytesIO()
    made = [Image.new('L' if kind == 'GIF' else 'RGB', (side, side), number % 256) for number in range(count)]
    made[0].save(buffer, kind, save_all=True, append_images=made[1:])
    return buffer.getvalue()


def webp_claim(width: int, height: int) -> bytes:
    """Returns an extended WebP that claims a canvas."""
    size = (width - 1).to_bytes(3, 'little') + (height - 1).to_bytes(3, 'little')
    body = b'VP8X' + struct.pack('<I', 10) + bytes([0x02, 0, 0, 0]) + size + b'ANIM' + struct.pack('<IIH', 6, 0, 0)
    return b'RIFF' + struct.pack('<I', len(body) + 4) + b'WEBP' + body


OVERLAPPING = functools.partial(overlapping_tags, 20_000, 2 * MEGABYTE)
EXIF_TAGS = b'Exif\0\0' + overlapping_tags(5_000, 2_000)[:65_000]
ADAM = {'interlaced': 1}
IMAGES: dict[str, Maker] = {
    'PNG of 60,000 x 1': lambda: png(60_000, 1),
    'PNG of 1 x 60,000': lambda: png(1, 60_000),
    'PNG of 1 x 100,000,000 claimed': lambda: header_png(1, 100_000_000),
    'PNG of 2^31 - 1 squared claimed': lambda: header_png((1 << 31) - 1, (1 << 31) - 1),
    'PNG of 10,000 x 9,999, RGBA': lambda: png(10_000, 9_999, colour=6),
    'PNG of 10,000 x 9,999, 16-bit RGBA': lambda: png(10_000, 9_999, depth=16, colour=6),
    'PNG of 10,000 x 9,999, interlaced': lambda: png(10_000, 9_999, colour=0, **ADAM, rows=bytes(101_000_000)),
    'PNG of 10,000 x 9,999, palette': lambda: png(10_000, 9_999, colour=3),
    'PNG of 40,000 x 40,000, 1 bit': lambda: png(40_000, 40_000, depth=1, colour=0),
    'PNG whose pixels inflate to 300 MB': lambda: png(16, 16, rows=bytes(300 * MEGABYTE)),
    'PNG of 2,000,000 chunks': lambda: png(16, 16, more=chunk(b'abCd', b'') * 2_000_000),
    'PNG of 500,000 empty IDATs': lambda: png(16, 16, more=chunk(b'IDAT', b'') * 500_000),
    'PNG of 1,000 zTXt bombs': lambda: png(16, 16, more=chunk(b'zTXt', b'a\0\0' + bomb(1)) * 1_000),
    'PNG with a zTXt of 200 MB': lambda: png(16, 16, more=chunk(b'zTXt', b'a\0\0' + bomb(200))),
    'PNG with an iTXt of 200 MB': lambda: png(
        16, 16, more=chunk(b'iTXt', b'a\0\1\0\0\0' + bomb(200))
    ),
    'PNG with an ICC profile of 200 MB': lambda: png(
        16, 16, more=chunk(b'iCCP', b'a\0\0' + bomb(200))
    ),
    'PNG with EXIF whose tags overlap': lambda: png(16, 16, more=chunk(b'eXIf', OVERLAPPING())),
    'APNG of 1,000,000 frames claimed': lambda: png(16, 16, more=chunk(b'acTL', struct.pack('>II', 1_000_000, 0))),
    'JPEG of 300 scans, 1,500 px': lambda: scans(300, 1_500),
    'JPEG of 100,000 scans, 10,000 px': lambda: empty_scans(100_000, 10_000, 10_000),
    'JPEG of 9 scans, 10,000 px': lambda: empty_scans(9, 10_000, 9_999),
    'JPEG of 5,000,000 markers': lambda: jpeg_with(segment(0xE3, b'') * 5_000_000),
    'JPEG of 200 MB of fill bytes': lambda: jpeg_with(b'\xff' * (200 * MEGABYTE)),
    'JPEG of 50 MB between markers': lambda: jpeg_with(b'\xff\0' * (25 * MEGABYTE)),
    'JPEG of 3,000 ICC segments': lambda: jpeg_with(segment(0xE2, b'ICC_PROFILE\0\1\1' + bytes(65_000)) * 3_000),
    'JPEG of 65,535 px squared claimed': lambda: empty_scans(1, 65_535, 65_535),
    'JPEG with EXIF whose tags overlap': lambda: jpeg_with(segment(0xE1, EXIF_TAGS)),
    'JPEG with EXIF 500 times': lambda: jpeg_with(segment(0xE1, EXIF_TAGS) * 500),
    'JPEG with 1,000 quantisation tables': lambda: jpeg_with(segment(0xDB, (b'\0' + bytes([1] * 64)) * 1_000) * 500),
    'JPEG without height': lambda: empty_scans(2, 65_500, 0),
    'PPM whose comment has 200 MB': lambda: b'P6\n#' + b'x' * (200 * MEGABYTE) + b'\n1 1 255\n000',
    'PPM of 200 MB of spaces': lambda: b'P6' + b' ' * (200 * MEGABYTE) + b'1 1 255\n000',
    'PPM of a width of 100,000,000 digits': lambda: b'P6 ' + b'9' * 100_000_000 + b' 1 255\n',
    'PPM of 10^9 px claimed': lambda: b'P6 1000000000 1000000000 255\n000',
    'PPM of 80 megapixels, 100 levels': lambda: b'P5 10000 8000 100\n' + bytes(80_000_000),
    'PPM of 100 MB of text': lambda: b'P2 5000 5000 255\n' + b'1 ' * 50_000_000,
    'PPM as text of one number': lambda: b'P2 5000 5000 255\n' + b'1' * 100_000_000,
    'PBM as text of 200 MB of comments': lambda: b'P1 9000 9000\n' + b'#\n' * 100_000_000,
    'PFM of 99 megapixels': lambda: b'Pf 10000 9900\n-1.0\n' + bytes(1000),
    'TIFF whose tags overlap': lambda: overlapping_tags(20_000, 20 * MEGABYTE),
    'TIFF of 60,000 tags of 1 MB': lambda: overlapping_tags(60_000, MEGABYTE),
    'TIFF of 10,000,000 strips claimed': lambda: tiff(plain_tiff(10, 10_000_000, strips=10_000_000), bytes(40_000_000)),
    'TIFF whose directories are a circle': lambda: tiff(plain_tiff(16, 16), bytes(999), next_at=8),
    'TIFF of 2^32 - 1 px claimed': lambda: tiff(plain_tiff((1 << 32) - 1, (1 << 32) - 1)),
    'TIFF of 100 megapixels, no pixels': lambda: tiff(plain_tiff(10_000, 10_000)),
    'TIFF of 99 megapixels of floats': lambda: saved('TIFF', 'F', (10_000, 9_900), compression='tiff_deflate'),
    'TIFF of 99 megapixels, CMYK': lambda: saved('TIFF', 'CMYK', (10_000, 9_900), compression='tiff_lzw'),
    'TIFF of 3,000 frames': lambda: frames('TIFF', 3_000, 8),
    'GIF of 65,535 px squared claimed': lambda: gif(65_535, 65_535, b''),
    'GIF of 50 MB of comment': lambda: gif(16, 16, b'!\xfe' + (b'\xff' + b'x' * 255) * 200_000 + b'\0'),
    'GIF of 5,000,000 extensions': lambda: gif(16, 16, b'!\xf9\x04\0\0\0\0\0' * 5_000_000),
    'GIF of 5,000 frames': lambda: frames('GIF', 5_000, 8),
    'WebP of 16,384 px squared claimed': lambda: webp_claim(16_384, 16_384),
    'WebP of 2^24 px squared claimed': lambda: webp_claim(1 << 24, 1 << 24),
    'WebP of 16,383 x 6,000': lambda: saved('WEBP', 'RGB', (16_383, 6_000), lossless=True, method=0),
    'WebP of 300 frames': lambda: frames('WEBP', 300, 64),
    'BMP of 2^31 - 1 px claimed': lambda: bmp((1 << 31) - 1, -(1 << 31), 0, b''),
    'BMP of 99 megapixels of run lengths': lambda: bmp(10_000, 9_900, 1, b'\1\0' * 60_000_000),
    'BMP of 50,000,000 jumps': lambda: bmp(10_000, 9_900, 1, b'\0\2\0\0' * 50_000_000),
    'AVIF that is nothing but a header': lambda: b'\0\0\0\x20ftypavif' + bytes(1000),
    'HEIC of nested boxes': lambda: b'\0\0\0\x18ftypheic\0\0\0\0heicmif1' + b'\0\0\xff\xffmeta' * 100_000,
    '200 MB of zeros': lambda: bytes(200 * MEGABYTE),
    'SVG': lambda: b'<svg xmlns="http://www.w3.org/2000/svg">' + b'<g>' * 1_000_000,
    'EPS': lambda: b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n',
}  # fmt: skip
