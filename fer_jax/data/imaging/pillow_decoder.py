"""Decoding of images by Pillow, of every kind, in strips. It runs in a process of its own, see `decoding_process`."""

import functools
import importlib.util
import io
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fer_jax.utils import limits
from fer_jax.utils.limits import LimitError

FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')  # Pillow knows more, and runs Ghostscript for EPS
ISO_BRANDS = (b'avif', b'avis', b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')  # AVIF and HEIC
TURNED = 'turned by EXIF'
STRIP_PIXELS = 1 << 20
GREY = ('1', 'L', 'LA', 'La')


class Opened(NamedTuple):
    """A decoded image.

    Attributes:
      width, height, channels: of the upright image; one channel is grey, three are RGB.
      notes: what is unusual about it.
      image: PIL image of any mode.
    """

    width: int
    height: int
    channels: int
    notes: tuple[str, ...]
    image: Any


@functools.cache
def missing_decoder(suffix: str) -> str:
    """Returns how to install what decodes files of an image suffix, in lower case; '' where it is installed."""
    if suffix == '.avif':
        from PIL import features

        return '' if features.check('avif') else "AVIF needs a newer Pillow; run pip install 'pillow>=11.3'"
    if suffix in ('.heic', '.heif', '.hif'):
        if importlib.util.find_spec('pillow_heif') is None:
            return "HEIC needs the package pillow-heif; run pip install 'fer_jax[heif]'"
        import pillow_heif

        pillow_heif.register_heif_opener()
    return ''


def possible_formats(data: bytes) -> tuple[str, ...]:
    """Returns the formats in which an image may be, as Pillow calls them.

    Raises:
      ValueError: the image is in a format without an installed decoder.
    """
    if data[4:8] != b'ftyp':
        return FORMATS
    suffix, name = ('.avif', 'AVIF') if data[8:12] in (b'avif', b'avis') else ('.heic', 'HEIF')
    if data[8:12] in ISO_BRANDS and (message := missing_decoder(suffix)):
        raise ValueError(message)
    return (name,) if data[8:12] in ISO_BRANDS else FORMATS


def open_image(
    data: bytes,
    most_pixels: int = limits.IMAGE_PIXELS,
    most_channels: int = 3,
    begin: Callable[[int], None] = lambda pixels: None,
) -> Opened:
    """Decodes an image, turned as its EXIF orientation says; of several frames the first.

    Args:
      most_pixels: pixels that it may have.
      most_channels: 1 turns colours to grey.
      begin: is called with the number of pixels when the header is read.

    Raises:
      LimitError: the image has more than `most_pixels` pixels, or needs too much memory.
      ValueError: the image cannot be decoded; the message is the reason, the same in every run.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=possible_formats(data))
        if image.width * image.height > most_pixels:
            raise LimitError(f'{image.width} x {image.height} pixels are more than {most_pixels:,}')
        begin(image.width * image.height)
        notes = _notes(image)
        image.load()
        if TURNED in notes:
            image = ImageOps.exif_transpose(image)
    except UnidentifiedImageError:
        raise ValueError(f'no known image format, it begins with {data[:8]!r}') from None
    except MemoryError:
        most = f'{limits.DECODING_BYTES >> 20} MB'
        raise LimitError(f'more than {most} of memory are needed to decode it, which is the limit') from None
    except LimitError:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise ValueError(f'{error or type(error).__name__}'.splitlines()[0]) from error
    channels = 1 if most_channels == 1 or image.mode in (*GREY, 'F') or image.mode.startswith('I') else 3
    return Opened(image.width, image.height, channels, notes, image)


def read_strips(opened: Opened) -> Iterator[bytes]:
    """Yields the pixels of an image from top to bottom as bytes, grey or RGB.

    CMYK and palettes become RGB, 16-bit grey keeps its high byte (Pillow's own conversion clips it to white), grey of
    floats is 0..1 or 0..255, alpha is dropped.
    """
    image, rows = opened.image, max(1, STRIP_PIXELS // opened.width)
    boxes = [(0, top, opened.width, min(top + rows, opened.height)) for top in range(0, opened.height, rows)]
    if image.mode.startswith('I'):
        import numpy as np

        for box in boxes:
            yield (np.asarray(image.crop(box)).clip(0, 65535).astype(np.uint16) >> 8).astype(np.uint8).tobytes()
    elif image.mode == 'F':
        import numpy as np

        factor = 255 if max(np.nan_to_num(np.asarray(image.crop(box))).max() for box in boxes) <= 1 else 1
        for box in boxes:
            yield (np.nan_to_num(np.asarray(image.crop(box))) * factor).clip(0, 255).astype(np.uint8).tobytes()
    else:
        is_grey = image.mode in GREY
        for box in boxes:
            strip = image.crop(box).convert('L' if is_grey else 'RGB')
            yield (strip.convert('L') if opened.channels == 1 else strip).tobytes()


def _notes(stored: Any) -> tuple[str, ...]:
    from PIL import ExifTags

    mode = stored.mode
    notes = {
        '16-bit': mode.startswith('I') or (stored.format == 'PNG' and ';16' in str(stored.tile)),
        'float': mode == 'F',
        'CMYK': mode == 'CMYK',
        'alpha': mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or 'transparency' in stored.info,
        'several frames': getattr(stored, 'is_animated', False),
        TURNED: stored.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9),
    }
    return tuple(note for note, true in notes.items() if true)
