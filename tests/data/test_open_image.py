import io

import numpy as np
import pytest
from PIL import Image, features

from fer_jax.data.imaging.codec import open_image


def encoded(image, form='PNG', **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def grey(seed=0, side=32):
    return np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)


def colour(seed=0, side=32):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


@pytest.mark.parametrize('form', ['PNG', 'BMP', 'TIFF'])
def test_usual_images_are_left_as_they_are(form):
    for levels in (grey(), colour()):
        image, notes = open_image(encoded(Image.fromarray(levels), form))
        assert (image.ndim, notes) == (levels.ndim, ())
        np.testing.assert_array_equal(np.asarray(image), levels)


@pytest.mark.parametrize('form', ['PNG', 'TIFF', 'PGM'])
def test_sixteen_bits_keep_their_high_byte(form):
    deep = np.random.default_rng(0).integers(0, 2**16, (32, 32), np.uint16)
    data = encoded(Image.fromarray(deep), form) if form != 'PGM' else b'P5 32 32 65535\n' + deep.astype('>u2').tobytes()
    image, notes = open_image(data)
    assert notes == ('16-bit',)
    np.testing.assert_array_equal(np.asarray(image), deep // 256)


def test_floats_are_0_to_1_or_0_to_255():
    ramp = np.linspace(0, 1, 32 * 32, dtype=np.float32).reshape(32, 32)
    for scale in (1, 255):
        image, notes = open_image(encoded(Image.fromarray(ramp * scale), 'TIFF'))
        assert notes == ('float',)
        np.testing.assert_allclose(np.asarray(image), ramp * 255, atol=1)


def test_cmyk_becomes_rgb():
    flat = Image.fromarray(np.full((32, 32, 3), (200, 100, 50), np.uint8))
    image, notes = open_image(encoded(flat.convert('CMYK'), 'JPEG', quality=100))
    assert (image.shape[2:], notes) == ((3,), ('CMYK',))
    np.testing.assert_allclose(np.asarray(image), np.asarray(flat), atol=4)


def test_of_an_animation_the_first_frame():
    frames = [Image.fromarray(np.full((32, 32), level, np.uint8)) for level in (10, 200)]
    image, notes = open_image(encoded(frames[0], 'GIF', save_all=True, append_images=frames[1:]))
    assert notes == ('several frames',)
    assert (image == 10).all()


def test_alpha_is_dropped_and_palettes_are_looked_up():
    levels = colour()
    image, notes = open_image(encoded(Image.fromarray(np.dstack([levels, grey()]))))
    assert (image.shape[2:], notes) == ((3,), ('alpha',))
    np.testing.assert_array_equal(np.asarray(image), levels)
    palette = Image.fromarray(levels).quantize(16)
    image, notes = open_image(encoded(palette))
    assert (image.shape[2:], notes) == ((3,), ())
    np.testing.assert_array_equal(np.asarray(image), np.asarray(palette.convert('RGB')))


def test_exif_turns_the_image():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    levels = grey()[:20]
    image, notes = open_image(encoded(Image.fromarray(levels), 'TIFF', exif=exif))
    assert notes == ('turned by EXIF',)
    np.testing.assert_array_equal(np.asarray(image), np.rot90(levels, -1))


FORMS = ['PNG', 'JPEG', 'MPO', 'GIF', 'BMP', 'TIFF', *(['WEBP'] if features.check('webp') else [])]


@pytest.mark.filterwarnings('ignore')  # Pillow's, about damaged tags
@pytest.mark.parametrize('form', FORMS)
def test_damaged_files_raise_one_kind_of_error(form):
    data = encoded(Image.fromarray(colour()), form)
    generator = np.random.default_rng(0)
    with pytest.raises(ValueError):
        open_image(data[: len(data) // 2])
    for _ in range(200):
        damaged = bytearray(data)
        for at in generator.integers(0, min(len(data), 120), 4):
            damaged[at] = generator.integers(256)
        try:
            open_image(bytes(damaged))
        except ValueError as error:
            assert str(error) and '\n' not in str(error) and '0x7f' not in str(error)


EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n'  # Pillow asks Ghostscript


@pytest.mark.parametrize(
    ('data', 'reason'), [(b'', 'an empty file'), (b'<!DOCTYPE html>', 'begins with b'), (EPS, 'no known image format')]
)
def test_what_is_no_image_is_said(data, reason):
    with pytest.raises(ValueError, match=reason):
        open_image(data)
