"""A network with YuNet's inputs and outputs that takes red squares for faces, written as ONNX by hand.

The outputs are those of Wu et al. 2023 (Machine Intelligence Research): at strides 8, 16 and 32, each cell has a class
and an object score, a box (offset of the middle and log of the sides, in cells) and five points (offsets, in cells).
Here only stride 32 finds anything: the scores are the mean red of a cell, box and points are constants.
"""

import numpy as np

BOX = (0.5, 0.5, np.log(2.0), np.log(3.0))
POINTS = ((0.25, 0.3), (0.75, 0.3), (0.5, 0.5), (0.3, 0.75), (0.7, 0.75))


def _field(number: int, value: int | str | bytes) -> bytes:
    """A protocol buffer's field: a varint, or bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    data = b''
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def _node(kind: str, inputs: list[str], output: str, **attributes: list[int]) -> bytes:
    node = b''.join(_field(1, name) for name in inputs) + _field(2, output) + _field(3, output) + _field(4, kind)
    for name, values in attributes.items():
        node += _field(5, _field(1, name) + b''.join(_field(8, value) for value in values) + _field(20, 7))
    return _field(1, node)


def _tensor(name: str, values: np.ndarray) -> bytes:
    kind = {'float32': 1, 'int64': 7}[values.dtype.name]
    tensor = b''.join(_field(1, size) for size in values.shape) + _field(2, kind) + _field(8, name)
    return _field(5, tensor + _field(9, values.tobytes()))


def _shaped(name: str, shape: list[int]) -> bytes:
    dimensions = b''.join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, dimensions)))


def encode() -> bytes:
    """The ONNX file."""
    graph, outputs = b'', b''
    for stride in (8, 16, 32):
        pooled = f'mean_{stride}'
        graph += _node('AveragePool', ['input'], pooled, kernel_shape=[stride] * 2, strides=[stride] * 2)
        red = [0.0, 0.0, 1 / 255] if stride == 32 else [0.0] * 3  # OpenCV's channels are BGR
        constants = {'cls': [0.0], 'obj': [0.0], 'bbox': BOX, 'kps': np.ravel(POINTS)}
        for head, bias in constants.items():
            name, channels = f'{head}_{stride}', len(bias)
            weight = np.tile(np.array(red if head in ('cls', 'obj') else [0.0] * 3, np.float32), (channels, 1))
            graph += _tensor(f'{name}.weight', weight.reshape(channels, 3, 1, 1))
            graph += _tensor(f'{name}.bias', np.array(bias, np.float32))
            graph += _tensor(f'{name}.shape', np.array([1, -1, channels], np.int64))
            graph += _node('Conv', [pooled, f'{name}.weight', f'{name}.bias'], f'{name}.map', kernel_shape=[1, 1])
            graph += _node('Transpose', [f'{name}.map'], f'{name}.last', perm=[0, 2, 3, 1])
            graph += _node('Reshape', [f'{name}.last', f'{name}.shape'], name)
            outputs += _field(12, _shaped(name, [1, (640 // stride) ** 2, channels]))
    graph += _field(2, 'tiny_yunet') + _field(11, _shaped('input', [1, 3, 640, 640])) + outputs
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, '') + _field(2, 13))
