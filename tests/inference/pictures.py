"""Pictures in which `tests.data.tiny_yunet` finds faces, and a header without pixels."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def red_cells(*columns):
    """A blue picture; of each red cell tiny_yunet makes a face."""
    image = np.full((320, 480, 3), (0, 0, 90), np.uint8)
    for column in columns:
        image[128:160, 32 * column : 32 * column + 32] = (255, 0, 0)
    return image


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG')
    return buffer.getvalue()


def header_of(width, height):
    """A PNG of that size in which no pixels follow."""
    whole = png(np.zeros((1, 1), np.uint8))
    body = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return whole[:12] + body + struct.pack('>I', zlib.crc32(body)) + whole[33:]
