"""The decoder against Pillow, on real pictures and on odd ones."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fer_jax.data import dataset
from fer_jax.data.imaging import codec
from fer_jax.errors import UserError


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture(scope='module')
def picture():
    """Smooth colours, 90 x 60."""
    rows, columns = np.mgrid[:60, :90]
    pixels = np.stack([rows * 4, columns * 2, 255 - rows - columns], -1).astype(np.uint8)
    return Image.fromarray(pixels)


def test_jpeg_is_pillows(shared_data):
    for path in sorted((shared_data / 'imagenet_sample').iterdir())[:5]:
        with Image.open(path) as opened:
            expected = np.asarray(opened.convert('RGB'), int)
        ours = codec.decode(path.read_bytes(), None, 3, path.name)
        assert np.abs(ours - expected).max() <= 4 and np.abs(ours - expected).mean() < 0.1


def test_a_reduced_jpeg_looks_like_the_whole_one(shared_data):
    """Decoding at a half to an eighth and resizing the rest is not resizing the whole, but close."""
    for path in sorted((shared_data / 'photos').glob('*.jpg')):
        data = path.read_bytes()
        ours = codec.decode(data, 64, 3, path.name).astype(int)
        whole = codec.decode(encoded(Image.open(path).convert('RGB'), 'PNG'), 64, 3, path.name)
        assert np.abs(ours - whole).mean() < 2.5


@pytest.mark.parametrize('kind', ['PNG', 'BMP', 'TIFF', 'PPM'])
def test_lossless_kinds(picture, kind):
    np.testing.assert_array_equal(codec.decode(encoded(picture, kind), None, 3, 'x'), np.asarray(picture))
    grey = codec.decode(encoded(picture, kind), None, 1, 'x')[..., 0]
    np.testing.assert_array_equal(grey, np.asarray(picture.convert('L')))


def test_whatever_lies_in_a_png_is_read_as_pillow_reads_it():
    """Of right checksums, with pixels that are too few, too many, of unknown filters, damaged, or in several chunks."""
    random = np.random.default_rng(0)
    outcomes = set()

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4, 'big')

    for number in range(300):
        width, height, colour = *random.integers(1, 12, 2).tolist(), int(random.choice([0, 2]))
        row = 1 + width * (3 if colour else 1)
        raw = random.integers(0, 256, (height, row), np.uint8)
        raw[:, 0] %= 5
        damage = number % 6
        if damage == 1:
            raw[random.integers(height), 0] = random.integers(5, 256)
        lines = raw.tobytes()
        lines = {2: lines[: random.integers(len(lines))], 3: lines + b'more'}.get(damage, lines)
        packed = bytearray(zlib.compress(lines))
        if damage == 4:
            packed[random.integers(len(packed))] ^= 1 << random.integers(8)
        cut = int(random.integers(len(packed)))
        header = struct.pack('>IIBBBBB', width, height, 8, colour, 0, 0, 0)
        data = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header)
        data += chunk(b'IDAT', bytes(packed[:cut])) + chunk(b'IDAT', bytes(packed[cut:])) + chunk(b'IEND', b'')
        if damage == 5:
            data = data[: -random.integers(1, 12)]
        try:
            expected = Image.fromarray(codec.open_image(data)[0]).convert('RGB')
        except ValueError:
            with pytest.raises(UserError):
                codec.decode(data, None, 3, 'x')
            outcomes.add((damage, 'refused'))
        else:
            np.testing.assert_array_equal(codec.decode(data, None, 3, 'x'), expected)
            outcomes.add((damage, 'read'))
    assert {(0, 'read'), (1, 'refused'), (2, 'refused'), (3, 'read'), (4, 'refused')} <= outcomes


def test_sixteen_bits_become_eight():
    wide = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000) + 37
    data = encoded(Image.fromarray(wide), 'PNG')
    for channels in (1, 3):
        np.testing.assert_array_equal(codec.decode(data, None, channels, 'x')[..., 0], wide // 256)


def test_cmyk_animation_palette_and_transparency(picture):
    near = np.asarray(picture, int)
    cmyk = codec.decode(encoded(picture.convert('CMYK'), 'JPEG', quality=95), None, 3, 'x')
    assert np.abs(cmyk - near).mean() < 6
    other = picture.transpose(Image.Transpose.ROTATE_180)
    animated = encoded(picture.convert('P'), 'GIF', save_all=True, append_images=[other.convert('P')])
    assert np.abs(codec.decode(animated, None, 3, 'x') - near).mean() < 25
    clear = picture.copy()
    clear.putalpha(0)
    np.testing.assert_array_equal(codec.decode(encoded(clear, 'PNG'), None, 3, 'x'), np.asarray(picture))


@pytest.mark.parametrize('turn', range(1, 9))
def test_exif_orientation_of_jpeg_and_png(picture, turn):
    """All eight, at a size that decodes the JPEG at a half too."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = turn
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(encoded(picture, 'PNG', exif=exif))))
    for kind in ('JPEG', 'PNG'):
        data = encoded(picture, kind, exif=exif)
        assert np.abs(codec.decode(data, None, 3, 'x').astype(int) - np.asarray(upright)).mean() < 3
        expected = codec.decode(encoded(upright, 'PNG'), 30, 3, 'x').astype(int)
        assert np.abs(codec.decode(data, 30, 3, 'x') - expected).mean() < 3


@pytest.mark.parametrize('damage', ['truncated JPEG', 'truncated PNG', 'text', 'empty', 'cut in the header'])
def test_what_is_no_image_is_named(picture, damage):
    jpeg, png = encoded(picture, 'JPEG'), encoded(picture, 'PNG')
    data = {
        'truncated JPEG': jpeg[:-200],
        'truncated PNG': png[: len(png) // 2],
        'text': b'not an image, but long enough to be one',
        'empty': b'',
        'cut in the header': jpeg[:30],
    }[damage]
    with pytest.raises(UserError, match='faces/7.jpg cannot be read as an image'):
        codec.decode(data, 32, 3, 'faces/7.jpg')


def test_a_gigantic_image_is_refused_by_its_header():
    for side in (11000, 20000):
        data = encoded(Image.new('1', (side, side)), 'PNG')
        with pytest.raises(UserError, match=f'{side} x {side} pixels are more than 100,000,000'):
            codec.decode(data, 32, 3, 'bomb.png')


def test_names_that_are_no_unicode(picture, tmp_path):
    for name in (b'happy', b'sad'):
        (tmp_path / os.fsdecode(name)).mkdir()
        for index in range(6):
            path = os.fsencode(tmp_path) + b'/' + name + b'/\xff\xfe%d.png' % index
            with open(path, 'wb') as file:
                file.write(encoded(picture, 'PNG'))
    data = dataset.load_dataset(
        dir=str(tmp_path),
        splits={role: role for role in ('train', 'validation', 'test')},
        image_size=16,
        channels=3,
        root=tmp_path,
    )
    assert sum(len(split.ids) for split in data.splits.values()) == 12
    assert data.splits['train'].read(np.arange(2)).shape == (2, 16, 16, 3)
