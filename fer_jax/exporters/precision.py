"""ONNX graphs in lower precision, by the tools of onnxruntime: float16, and int8 after training."""

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError

PRECISIONS = ('float32', 'float16', 'int8')
CALIBRATION_BATCH_SIZE = 16
QUANTIZED = ['Conv', 'Gemm', 'MatMul']  # preprocessing and softmax stay in float32


def to_float16(model: bytes) -> bytes:
    """Returns an ONNX file with weights and arithmetic in float16; its input and output keep their types.

    Args:
      model: bytes of an ONNX file in float32.

    Raises:
      UserError: the package onnxruntime is missing.
    """
    with _tools():
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        return convert_float_to_float16(onnx.load_from_string(model), keep_io_types=True).SerializeToString()


def to_int8(model: bytes, images: np.ndarray, *, name: str) -> bytes:
    """Returns an ONNX file in which convolutions and matrix products have int8 weights and uint8 activations.

    The ranges of the activations are those of the images.

    Args:
      model: bytes of an ONNX file in float32.
      images: uint8 [N, size, size, 3], training images.
      name: name of the input.

    Raises:
      UserError: the package onnxruntime is missing.
    """
    with _tools(), tempfile.TemporaryDirectory() as folder:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        whole, prepared, quantized = (Path(folder, file) for file in ('whole.onnx', 'prepared.onnx', 'int8.onnx'))
        whole.write_bytes(model)
        quant_pre_process(str(whole), str(prepared), skip_symbolic_shape=True)
        starts = range(0, len(images), CALIBRATION_BATCH_SIZE)
        quantization.quantize_static(
            str(prepared),
            str(quantized),
            _Reader({name: images[start : start + CALIBRATION_BATCH_SIZE]} for start in starts),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return quantized.read_bytes()


class _Reader:
    """Hands batches to onnxruntime, as a `CalibrationDataReader`."""

    def __init__(self, batches: Iterator[dict[str, np.ndarray]]):
        self._batches = batches

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


@contextlib.contextmanager
def _tools() -> Iterator[None]:
    """Runs tools of onnxruntime, whose progress is not printed."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except ImportError as error:
        raise UserError(f"lower precision needs {error.name}; run pip install 'fer_jax[export]'") from None
