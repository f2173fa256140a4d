"""The one decoder of images, for every source and placement."""

import io

import numpy as np

from fer_jax.errors import UserError

LARGEST = 100_000_000  # pixels


def decode(data: bytes, size: int | None, channels: int, name: str) -> np.ndarray:
    """An encoded image as uint8 [H, W, channels], RGB or grey.

    EXIF orientation is honoured, of several frames the first is taken, 16 bits become 8, transparency is dropped. With
    `size` the short side is resized to it (bilinear, antialiased) and the middle square kept; a JPEG of at least twice
    that size is decoded at a half, a quarter or an eighth (libjpeg's scaled DCT).

    Raises:
      UserError: the image, called `name`, cannot be read, or is larger than `LARGEST`.
    """
    from PIL import Image, ImageOps

    mode = 'L' if channels == 1 else 'RGB'
    try:
        opened = Image.open(io.BytesIO(data))
        if opened.width * opened.height > LARGEST:
            raise UserError(
                f'{name} has {opened.width} x {opened.height} pixels, more than {LARGEST:,}; make it smaller'
            )
        if opened.format == 'JPEG' and opened.mode in ('L', 'RGB') and b'\xff\xd9' in data[-256:]:
            image = Image.fromarray(_decode_jpeg(data, min(opened.size), size, channels))
        elif opened.mode.startswith('I;16'):
            image = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8)).convert(mode)
        else:
            image = ImageOps.exif_transpose(opened).convert(mode)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f'{name} cannot be read as an image ({error}); remove or replace it') from error
    if size is not None and image.size != (size, size):
        factor = size / min(image.size)
        fitted = max(size, round(image.width * factor)), max(size, round(image.height * factor))
        image = image.resize(fitted, Image.Resampling.BILINEAR)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image, np.uint8).reshape(image.height, image.width, channels)


def _decode_jpeg(data: bytes, short: int, size: int | None, channels: int) -> np.ndarray:
    """By OpenCV, faster than Pillow; but it fills a truncated file with grey, so only a whole one is given."""
    import cv2

    kind = 'GRAYSCALE' if channels == 1 else 'COLOR'
    reduction = max((factor for factor in (1, 2, 4, 8) if size is None or short >= factor * size), default=1)
    flag = f'IMREAD_REDUCED_{kind}_{reduction}' if size is not None and reduction > 1 else f'IMREAD_{kind}'
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), getattr(cv2, flag))
    if pixels is None:
        raise ValueError('damaged JPEG')
    return pixels if channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
