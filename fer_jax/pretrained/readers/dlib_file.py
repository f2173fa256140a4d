"""Reads the weights of dlib's face ResNet from the .dat file that dlib's `serialize` writes.

Such a file does not describe its network: it holds the versions of all layers from the last to the first, then their
settings and parameters from the first to the last. So the layers of this network are expected one by one, and a file
of another network is refused at its first difference. Nothing is nested, and nothing is allocated but views of the
file.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fer_jax.errors import UserError
from fer_jax.models import dlib_resnet
from fer_jax.utils import limits
from fer_jax.utils.limits import check_limit

BEGINNING = b'\x01\x01\x01\x0dloss_metric_2'
LAYER_VERSION, FIRST_LAYER_VERSION, TAG_VERSION, TENSOR_VERSION, ALIAS_VERSION = 2, 3, 1, 2, 1
INTEGER_BYTES = 8  # at most


class Layer(NamedTuple):
    """A layer of the network.

    Attributes:
      kind: dlib's name of the layer with its version; '' for a tag, which has nothing but the version.
      path: of its parameters, a module of fer_jax's network; '' where it has none.
      shape: of the kernel, (out, in, height, width), or (in, out) of the last layer, or (features,).
      settings: integers that follow the parameters, or the name where there are no parameters.
    """

    kind: str
    path: str = ''
    shape: tuple[int, ...] = ()
    settings: tuple[int, ...] = ()


def convolution(path: str, features_in: int, features_out: int, size: int, stride: int, padding: int) -> Layer:
    settings = (features_out, size, size, stride, stride, padding, padding)
    return Layer('con_4', path, (features_out, features_in, size, size), settings)


def list_layers() -> Iterator[Layer]:
    """Yields the layers from the first to the last."""
    features = dlib_resnet.STEM_WIDTH
    yield convolution('conv1', 3, features, 7, 2, 0)
    yield Layer('affine_', 'affine1', (features,))
    yield Layer('relu_')
    yield Layer('max_pool_2', settings=(3, 3, 2, 2, 0, 0))
    for level, (count, width) in dlib_resnet.LEVELS.items():
        for index in range(count):
            block, halves = f'{level}.{index}', not index and level != dlib_resnet.NOT_HALVED
            yield Layer('')
            yield convolution(f'{block}.conv1', features, width, 3, *((2, 0) if halves else (1, 1)))
            yield Layer('affine_', f'{block}.affine1', (width,))
            yield Layer('relu_')
            yield convolution(f'{block}.conv2', width, width, 3, 1, 1)
            yield Layer('affine_', f'{block}.affine2', (width,))
            if halves:
                yield Layer('')
                yield Layer('')
                yield Layer('avg_pool_2', settings=(2, 2, 2, 2, 0, 0))
            yield Layer('add_prev_')
            yield Layer('relu_')
            features = width
    yield Layer('avg_pool_2', settings=(0, 0, 1, 1, 0, 0))
    yield Layer('fc_2', 'embedding', (features, dlib_resnet.EMBEDDING), (dlib_resnet.EMBEDDING, features))


def is_dlib(head: bytes) -> bool:
    """Returns whether a file that begins with `head` is a network that dlib trained to compare images."""
    return head.startswith(BEGINNING)


def read_dlib(path: Path) -> dict[str, np.ndarray]:
    """Reads the parameters of dlib's face ResNet.

    Returns:
      {`<module>.kernel`: [out, in, height, width] or [in, out], `<module>.bias` and `.scale`: [features]}, float32,
      with the modules of `dlib_resnet`.

    Raises:
      UserError: the file is damaged, above a limit, or of another network.
    """
    try:
        check_limit(path.stat().st_size, limits.DLIB_BYTES, 'bytes')
        return dict(Stream(path.read_bytes()).parameters())
    except (ValueError, IndexError) as error:
        raise UserError(f"{path} cannot be read as dlib's face ResNet ({error})") from error


class Stream:
    """Reads what dlib wrote from the front; every value that does not hold a parameter must be the expected one."""

    def __init__(self, data: bytes):
        self.data, self.position = memoryview(data), 0

    def parameters(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (name, array) of all parameters, up to the end of the file."""
        layers = list(list_layers())
        self.expect('the version of the loss', 1)
        self.expect_text('loss_metric_2')
        self.skip_numbers(2)
        for layer in reversed(layers[1:]):
            self.expect('the version of a layer', LAYER_VERSION if layer.kind else TAG_VERSION)
        self.expect('the version of the first layer', FIRST_LAYER_VERSION)
        self.expect_text('input_rgb_image_sized')
        self.skip_numbers(3)
        self.expect('the size of images', 150, 150)
        for index, layer in enumerate(layers):
            if not layer.kind:
                continue
            self.expect_text(layer.kind)
            yield from self.details(layer)
            self.state()
            if index == 0:
                self.expect('the images made of one', 1)
        if self.position != len(self.data):
            raise ValueError(f'{len(self.data) - self.position:,} bytes follow its last layer')

    def details(self, layer: Layer) -> Iterator[tuple[str, np.ndarray]]:
        """Reads settings and parameters of one layer."""
        if layer.kind == 'fc_2':
            self.expect(layer.path, *layer.settings)
            yield f'{layer.path}.kernel', self.tensor(layer.path, math.prod(layer.shape)).reshape(layer.shape)
            self.alias()
            self.alias()
            self.expect('a layer without a bias', 1)
            self.skip_numbers(4)
        elif layer.kind == 'con_4':
            size, features = math.prod(layer.shape), layer.shape[0]
            values = self.tensor(layer.path, size + features)
            yield f'{layer.path}.kernel', values[:size].reshape(layer.shape)
            yield f'{layer.path}.bias', values[size:]
            self.expect(layer.path, *layer.settings)
            self.alias()
            self.alias()
            self.skip_numbers(4)
        elif layer.kind == 'affine_':
            features = layer.shape[0]
            values = self.tensor(layer.path, 2 * features)
            yield f'{layer.path}.scale', values[:features]
            yield f'{layer.path}.bias', values[features:]
            self.alias()
            self.alias()
            self.expect('a scale for each channel', 0)
        else:
            self.expect(layer.kind, *layer.settings)

    def state(self) -> None:
        """Skips what a layer keeps between passes: three flags, and three tensors, empty in a published file."""
        flags = bytes(self.take(3))
        if not set(flags) <= set(b'01'):
            raise ValueError(f'{flags!r} before byte {self.position:,} are no flags')
        for _ in range(3):
            self.tensor('a gradient')

    def take(self, count: int) -> memoryview:
        if count > len(self.data) - self.position:
            raise ValueError(f'it ends after {len(self.data):,} bytes, where {count:,} more are announced')
        self.position += count
        return self.data[self.position - count : self.position]

    def integer(self) -> int:
        """Reads an integer: a byte with its sign and the number of bytes that follow."""
        control = self.take(1)[0]
        size = control & 0x0F
        if control & 0x70 or not 1 <= size <= INTEGER_BYTES:
            raise ValueError(f'byte {self.position - 1:,} begins no integer')
        value = int.from_bytes(self.take(size), 'little')
        return -value if control & 0x80 else value

    def expect(self, what: str, *values: int) -> None:
        for value in values:
            if (number := self.integer()) != value:
                raise ValueError(f'{what}: {number} before byte {self.position:,}, expected {value}')

    def expect_text(self, text: str) -> None:
        self.expect(f'length of {text!r}', len(text))
        if (held := bytes(self.take(len(text)))) != text.encode():
            raise ValueError(f'{held!r} before byte {self.position:,}, expected {text!r}')

    def skip_numbers(self, count: int) -> None:
        """Skips floating-point numbers, each a mantissa and an exponent."""
        for _ in range(2 * count):
            self.integer()

    def alias(self) -> None:
        """Skips the shape of a part of the parameters, which the settings give too."""
        self.expect('the version of a view', ALIAS_VERSION)
        self.skip_numbers(2)

    def tensor(self, what: str, count: int | None = None) -> np.ndarray:
        """Reads a tensor of `count` numbers, float32 [count]; of any number if None."""
        self.expect('the version of a tensor', TENSOR_VERSION)
        sizes = [self.integer() for _ in range(4)]
        if min(sizes) < 0 or count not in (None, math.prod(sizes)):
            raise ValueError(f'{what} has the shape {sizes}, expected {count} numbers')
        return np.frombuffer(self.take(4 * math.prod(sizes)), '<f4')
