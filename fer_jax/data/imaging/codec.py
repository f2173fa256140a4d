"""The decoder of images, for every source and placement."""

import io
import struct
import zlib

import numpy as np

from fer_jax.data.imaging import decoding_process
from fer_jax.data.imaging.pillow_decoder import possible_formats
from fer_jax.errors import UserError
from fer_jax.utils import limits
from fer_jax.utils.limits import LimitError

IMAGE_SUFFIXES = frozenset(
    {'.jpg', '.jpeg', '.jpe', '.jfif', '.jif', '.png', '.apng', '.bmp', '.webp', '.gif', '.tif', '.tiff'}
    | {'.pbm', '.pgm', '.ppm', '.pnm', '.avif', '.heic', '.heif', '.hif'}
)
WIDEST = 20  # times the shorter side
FRAMES = (0xC0, 0xC1, 0xC2)  # markers of a JPEG's frame: baseline, extended, progressive
WITHOUT_LENGTH = (0x00, 0x01, *range(0xD0, 0xDA), 0xFF)


class ImageLimitError(UserError):
    """Signals that an image is above a limit of pixels, time or memory.

    Attributes:
      reason: which limit it is above.
    """

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def decode(
    data: bytes, size: int | None, channels: int, name: str, *, most_pixels: int = limits.IMAGE_PIXELS
) -> np.ndarray:
    """Decodes an image to uint8 [H, W, channels], RGB or grey; what is unusual is handled as by `open_image`.

    With `size` the short side is resized to it (bilinear, antialiased) and the middle square kept; a JPEG of at least
    twice that size is decoded at a half, a quarter or an eighth (libjpeg's scaled DCT).

    Raises:
      ImageLimitError: the image, called `name`, is above a limit.
      UserError: the image cannot be read.
    """
    try:
        return decode_pixels(data, size, channels, most_pixels)
    except LimitError as error:
        message = f'{name} cannot be read as an image ({error}); remove or replace it'
        raise ImageLimitError(message, str(error)) from error
    except ValueError as error:
        raise UserError(f'{name} cannot be read as an image ({error}); remove or replace it') from error


def decode_pixels(data: bytes, size: int | None, channels: int, most_pixels: int = limits.IMAGE_PIXELS) -> np.ndarray:
    """Decodes an image as `decode` does.

    Raises:
      ValueError: the image cannot be read; the message is the reason.
    """
    pixels = _plain_jpeg(data, size, channels, most_pixels)
    if pixels is None:
        pixels = _plain_png(data, channels, most_pixels)
    if pixels is None:
        pixels = open_image(data, most_pixels, channels)[0]
        pixels = np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 and channels == 3 else pixels
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


def read_size(data: bytes) -> tuple[int, int, int]:
    """Returns the height, the width and the number of channels of an image.

    Raises:
      ValueError: the image cannot be read.
    """
    if frame := _jpeg_frame(data):
        return frame[1], frame[0], min(frame[2], 3)
    if data[:8] == b'\x89PNG\r\n\x1a\n' and len(data) >= 33 and data[25] in (0, 2):
        width, height = struct.unpack_from('>II', data, 16)
        return height, width, 3 if data[25] else 1
    pixels, _ = open_image(data)
    return pixels.shape[0], pixels.shape[1], 3 if pixels.ndim == 3 else 1


def _jpeg_frame(data: bytes) -> tuple[int, int, int] | None:
    """Returns the width, the height and the number of components of a JPEG of a usual kind; else None."""
    place, frame = 2, None
    if data[:3] != b'\xff\xd8\xff':
        return None
    for _ in range(limits.HEADER_SEGMENTS):
        if place + 10 > len(data) or data[place] != 0xFF or data[place + 1] in WITHOUT_LENGTH:
            return None
        marker = data[place + 1]
        if marker == 0xDA:
            return frame
        if marker in FRAMES:
            depth, height, width, components = struct.unpack_from('>BHHB', data, place + 4)
            if frame or depth != 8 or components not in (1, 3):
                return None
            frame = width, height, components
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return None


def _plain_jpeg(data: bytes, size: int | None, channels: int, most_pixels: int) -> np.ndarray | None:
    """Decodes a whole JPEG by OpenCV, faster than Pillow; returns None for all else, also for one without its end."""
    frame = _jpeg_frame(data) if b'\xff\xd9' in data[-256:] else None
    if frame is None or not 0 < frame[0] * frame[1] <= most_pixels:
        return None
    work = frame[0] * frame[1] * data.count(b'\xff\xda')
    if work > limits.MOST_SCAN_PIXELS:
        raise LimitError(f'its scans times its pixels are {work:,}, at most {limits.MOST_SCAN_PIXELS:,} are decoded')
    if work > limits.SCAN_PIXELS:
        return None
    import cv2

    shorter = min(frame[:2])
    factors = (1,) if size is None else [factor for factor in (1, 2, 4, 8) if factor == 1 or factor * size <= shorter]
    kind, reduction = 'GRAYSCALE' if channels == 1 else 'COLOR', max(factors)
    flag = f'IMREAD_REDUCED_{kind}_{reduction}' if reduction > 1 else f'IMREAD_{kind}'
    return _red_first(cv2.imdecode(np.frombuffer(data, np.uint8), getattr(cv2, flag)))


def _red_first(pixels: np.ndarray | None) -> np.ndarray | None:
    """Turns what OpenCV has decoded to RGB, in its place; grey stays."""
    import cv2

    return pixels if pixels is None or pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)


def _plain_png(data: bytes, channels: int, most_pixels: int) -> np.ndarray | None:
    """Decodes a PNG of 8-bit grey or RGB by OpenCV, faster than Pillow; returns None for all else."""
    if data[:8] != b'\x89PNG\r\n\x1a\n' or len(data) < 33:
        return None
    width, height, depth, colour = struct.unpack_from('>IIBB', data, 16)
    if depth != 8 or colour not in (0, 2) or colour > channels or width * height > most_pixels:
        return None  # colours become grey as Pillow weighs them
    if _chunks(data) - {b'IHDR', b'IDAT', b'IEND'}:
        return None
    import cv2

    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
    return _red_first(cv2.imdecode(np.frombuffer(data, np.uint8), flag))


def _chunks(data: bytes) -> set[bytes]:
    """Returns the kinds of chunks of a PNG, `b''` among them where one is damaged or there are too many."""
    kinds, place = set(), 8
    for _ in range(limits.HEADER_SEGMENTS):
        length, kind = struct.unpack_from('>I4s', data, place) if place + 12 <= len(data) else (0, b'')
        end = place + 8 + length
        if data[end : end + 4] != zlib.crc32(memoryview(data)[place + 4 : end]).to_bytes(4, 'big'):
            kind = b''
        kinds.add(kind)
        if kind in (b'', b'IEND'):
            return kinds
        place = end + 4
    return {b''}


def open_image(
    data: bytes, most_pixels: int = limits.IMAGE_PIXELS, most_channels: int = 3
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decodes an image of one of Pillow's usual formats, or AVIF or HEIC where their decoders are installed.

    Another process decodes it, under the limits of time and memory of `fer_jax.utils.limits`. EXIF orientation is
    honoured, of several frames the first is taken, CMYK and palettes become RGB, 16-bit grey keeps its high byte, grey
    of floats is 0..1 or 0..255, alpha is dropped.

    Args:
      most_pixels: pixels that the image may have.
      most_channels: 1 turns colours to grey.

    Returns:
      uint8 [H, W], grey, or [H, W, 3], RGB; and what is unusual about the image, out of '16-bit', 'float', 'CMYK',
      'alpha', 'several frames' and 'turned by EXIF'.

    Raises:
      LimitError: it has too many pixels, or needs too much time or memory.
      ValueError: it cannot be decoded; the message is the reason, the same in every run.
    """
    if not data:
        raise ValueError('an empty file')
    possible_formats(data)
    decoded = decoding_process.decode(data, most_pixels, most_channels)
    shape = (decoded.height, decoded.width, 3)[: 2 if decoded.channels == 1 else 3]
    return np.frombuffer(decoded.pixels, np.uint8).reshape(shape), decoded.notes


def encode(pixels: np.ndarray) -> bytes:
    """Encodes uint8 [H, W] or [H, W, 3] as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG')
    return buffer.getvalue()
