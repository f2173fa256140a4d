"""The decoder of images, for every source and placement."""

import functools
import importlib.util
import io
import struct
import warnings
import zlib
from typing import Any

import numpy as np

from fer_jax.errors import UserError

LARGEST_PIXELS = 100_000_000  # pixels
IMAGE_SUFFIXES = frozenset(
    {'.jpg', '.jpeg', '.jpe', '.jfif', '.jif', '.png', '.apng', '.bmp', '.webp', '.gif', '.tif', '.tiff'}
    | {'.pbm', '.pgm', '.ppm', '.pnm', '.avif', '.heic', '.heif', '.hif'}
)
FORMATS = ('BMP', 'GIF', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')  # Pillow knows more, and runs Ghostscript for EPS
ISO_BRANDS = (b'avif', b'avis', b'heic', b'heix', b'heim', b'heis', b'hevc', b'hevx', b'mif1', b'msf1')  # AVIF and HEIC
# Pillow warns of less than that, and nothing but a filter of the whole process is safe with several threads.
warnings.filterwarnings('ignore', r'Image size \(\d+ pixels\) exceeds limit of \d+ pixels', RuntimeWarning)
WIDEST = 20  # times the shorter side
TURNED = 'turned by EXIF'


def decode(data: bytes, size: int | None, channels: int, name: str) -> np.ndarray:
    """Decodes an image to uint8 [H, W, channels], RGB or grey; what is unusual is handled as by `open_image`.

    With `size` the short side is resized to it (bilinear, antialiased) and the middle square kept; a JPEG of at least
    twice that size is decoded at a half, a quarter or an eighth (libjpeg's scaled DCT).

    Raises:
      UserError: the image, called `name`, cannot be read.
    """
    try:
        pixels = _whole_jpeg(data, size, channels)
        if pixels is None:
            pixels = _plain_png(data, channels)
        if pixels is None:
            pixels = np.asarray(open_image(data)[0].convert('L' if channels == 1 else 'RGB'))
    except ValueError as error:
        raise UserError(f'{name} cannot be read as an image ({error}); remove or replace it') from error
    if size is not None:
        pixels = fit_square(pixels, size)
    return pixels.reshape(*pixels.shape[:2], channels)


def fit_square(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resizes the short side of uint8 [H, W] or [H, W, C] to `size`, antialiased, and keeps the middle square."""
    if pixels.shape[:2] == (size, size):
        return pixels
    from PIL import Image

    image = Image.fromarray(_without_ends(pixels))
    factor = size / min(image.size)
    fitted = max(size, round(image.width * factor)), max(size, round(image.height * factor))
    image = image.resize(fitted, Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _without_ends(pixels: np.ndarray) -> np.ndarray:
    """Cuts the ends off a strip of pixels, whose enlargement would fill the memory."""
    most = WIDEST * min(pixels.shape[:2])
    top, left = (max(side - most, 0) // 2 for side in pixels.shape[:2])
    return pixels[top : top + most, left : left + most]


def _whole_jpeg(data: bytes, size: int | None, channels: int) -> np.ndarray | None:
    """Decodes a whole JPEG by OpenCV, faster than Pillow; returns None for all else, also for one without its end."""
    if data[:3] != b'\xff\xd8\xff' or b'\xff\xd9' not in data[-256:]:
        return None
    import cv2
    from PIL import Image

    try:
        stored = Image.open(io.BytesIO(data))
    except (OSError, SyntaxError, Image.DecompressionBombError):
        return None
    if stored.mode not in ('L', 'RGB') or stored.width * stored.height > LARGEST_PIXELS:
        return None
    kind = 'GRAYSCALE' if channels == 1 else 'COLOR'
    reduction = (
        1
        if size is None
        else max(factor for factor in (1, 2, 4, 8) if factor == 1 or factor * size <= min(stored.size))
    )
    flag = f'IMREAD_REDUCED_{kind}_{reduction}' if reduction > 1 else f'IMREAD_{kind}'
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), getattr(cv2, flag))
    return pixels if pixels is None or channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _plain_png(data: bytes, channels: int) -> np.ndarray | None:
    """Decodes a PNG of 8-bit grey or RGB by OpenCV, faster than Pillow; returns None for all else."""
    if data[:8] != b'\x89PNG\r\n\x1a\n' or len(data) < 33:
        return None
    width, height, depth, colour = struct.unpack_from('>IIBB', data, 16)
    if depth != 8 or colour not in (0, 2) or colour > channels or width * height > LARGEST_PIXELS:
        return None  # colours become grey as Pillow weighs them
    if _chunks(data) - {b'IHDR', b'IDAT', b'IEND'}:
        return None
    import cv2

    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR)
    return pixels if pixels is None or channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _chunks(data: bytes) -> set[bytes]:
    """Returns the kinds of chunks of a PNG, `b''` among them where one is damaged, or the last is not whole."""
    kinds, at = set(), 8
    while b'IEND' not in kinds:
        length, kind = struct.unpack_from('>I4s', data, at) if at + 12 <= len(data) else (0, b'')
        end = at + 8 + length
        if data[end : end + 4] != zlib.crc32(data[at + 4 : end]).to_bytes(4, 'big'):
            kind = b''
        kinds.add(kind)
        if not kind:
            break
        at = end + 4
    return kinds


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


def _formats(data: bytes) -> tuple[str, ...]:
    """The formats in which an image may be.

    Raises:
      ValueError: it is in one for which there is no decoder.
    """
    if data[4:8] != b'ftyp':
        return FORMATS
    suffix, name = ('.avif', 'AVIF') if data[8:12] in (b'avif', b'avis') else ('.heic', 'HEIF')
    if data[8:12] in ISO_BRANDS and (message := missing_decoder(suffix)):
        raise ValueError(message)
    return (name,) if data[8:12] in ISO_BRANDS else FORMATS


def open_image(data: bytes) -> tuple[Any, tuple[str, ...]]:
    """Decodes an image of one of `FORMATS`, or AVIF or HEIC where their decoders are installed.

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
        stored = Image.open(io.BytesIO(data), formats=_formats(data))
        if stored.width * stored.height > LARGEST_PIXELS:
            raise ValueError(f'{stored.width} x {stored.height} pixels are more than {LARGEST_PIXELS:,}')
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


def encode(pixels: np.ndarray) -> bytes:
    """Encodes uint8 [H, W] or [H, W, 3] as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG')
    return buffer.getvalue()
