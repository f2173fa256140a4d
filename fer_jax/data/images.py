"""Encoded images as 8-bit grey or colour, whatever they were stored as."""

import io
from typing import Any

import numpy as np

TURNED = 'turned by EXIF'


def open_image(data: bytes) -> tuple[Any, tuple[str, ...]]:
    """Decodes an image of any kind that Pillow reads.

    EXIF orientation is honoured, of several frames the first is taken, CMYK and palettes become RGB, 16-bit grey keeps
    its high byte (Pillow's own conversion clips it to white), grey of floats is 0..1 or 0..255, alpha is dropped.

    Returns:
      The PIL image, of mode L or RGB, and what was unusual about it, out of '16-bit', 'float', 'CMYK', 'alpha',
      'several frames' and 'turned by EXIF'.

    Raises:
      ValueError: the data cannot be decoded; the message is the reason, the same in every run.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not data:
        raise ValueError('an empty file')
    try:
        stored = Image.open(io.BytesIO(data))
        notes = _notes(stored)
        upright = ImageOps.exif_transpose(stored) if TURNED in notes else stored
        return _eight_bits(upright), notes
    except UnidentifiedImageError:
        raise ValueError(f'no known image format, it begins with {data[:8]!r}') from None
    except Exception as error:  # a damaged file can make a decoder raise anything
        raise ValueError(f'{error or type(error).__name__}'.splitlines()[0]) from error


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


def _eight_bits(image: Any) -> Any:
    from PIL import Image

    if image.mode.startswith('I'):
        return Image.fromarray((np.asarray(image).clip(0, 65535).astype(np.uint16) >> 8).astype(np.uint8))
    if image.mode == 'F':
        levels = np.nan_to_num(np.asarray(image))
        return Image.fromarray((levels * (255 if levels.max() <= 1 else 1)).clip(0, 255).astype(np.uint8))
    wanted = 'L' if image.mode in ('1', 'L', 'LA', 'La') else 'RGB'
    if image.mode == wanted:
        image.load()
        return image
    return image.convert(wanted)
