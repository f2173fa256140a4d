"""Reads the weights in Keras's HDF5 files without Keras.

Layouts: a group a layer, with the names of its variables in an attribute (`save('x.h5')` of all versions and
`save_weights('x.h5')` of Keras 2, which Keras Applications and keras-vggface publish), and Keras 3's `.weights.h5`, a
group a layer in order of creation, with numbered variables.
"""

import contextlib
import itertools
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError

READ_SECONDS = 300.0  # seconds; 1 GB takes two
HDF5 = b'\x89HDF\r\n\x1a\n'

# The variables of Keras 3's layers, by number
_NORM = ('gamma', 'beta', 'moving_mean', 'moving_variance')
_KERNEL = ('kernel', 'bias')
VARIABLES = {
    'conv2d': (_KERNEL, _KERNEL[:1]),
    'depthwise_conv2d': (_KERNEL, _KERNEL[:1]),
    'dense': (_KERNEL, _KERNEL[:1]),
    'batch_normalization': (_NORM, _NORM[1:]),  # without gamma, as Applications has it; never without beta
    'normalization': (('mean', 'variance', 'count'),),
}
_KINDS = '|'.join(('W', 'b', 'depthwise_kernel', *_KERNEL, *_NORM, *VARIABLES['normalization'][0]))
LEAF = re.compile(rf'(?:.*?_)??({_KINDS})(?:_\d+)?(?::\d+)?')  # 'kernel:0', 'block1_conv1_W_1:0'
OLD_LEAVES = {'W': 'kernel', 'b': 'bias'}


def read_keras(path: Path) -> dict[str, np.ndarray]:
    """The variables in `path`: `<layer>/<leaf>` -> array, e.g. 'conv2_block1_1_conv/kernel', in Keras's layout.

    Nothing outside the file is read, whatever it links to, and no array larger than the file is allocated. A process of
    its own reads it first: damage among the strings of a Keras 3 file makes the HDF5 library loop for ever.

    Raises:
      UserError: the file is missing, damaged, or holds anything but weights.
    """
    if not path.is_file():
        raise UserError(f'{path} is not a file; give a .h5 or .weights.h5 of weights')
    package = str(Path(__file__).parents[3])
    environment = os.environ | {'PYTHONPATH': os.pathsep.join([package, os.environ.get('PYTHONPATH', '')])}
    try:
        status = subprocess.run(
            [sys.executable, '-P', __file__, path], env=environment, timeout=READ_SECONDS
        ).returncode
    except subprocess.TimeoutExpired:
        raise UserError(f'{path} is damaged: it is not read after {READ_SECONDS:g} s; fetch it again') from None
    if status:
        raise UserError(f'{path} is damaged: the HDF5 library ends with {status}; fetch it again')
    return _read(path)


def _read(path: Path) -> dict[str, np.ndarray]:
    import h5py

    try:
        with h5py.File(path, 'r') as file:
            reader = Reader(path.stat().st_size)
            entries = reader.numbered(file) if 'layers' in file else reader.named(file)
        if not entries:
            raise ValueError('it holds no variables')
        return entries
    except Exception as error:  # a damaged file can make the library raise anything
        raise UserError(f'{path} cannot be read as weights ({type(error).__name__}: {error})') from error


class Reader:
    """Reads groups of one file, and counts what it has read: in all no more than the file's size."""

    def __init__(self, size: int):
        self.size = self.left = size

    def named(self, file: Any) -> dict[str, np.ndarray]:
        """The layout of layer groups, also under `model_weights`."""
        root = member(file, 'model_weights') if 'model_weights' in file else file
        entries: dict[str, np.ndarray] = {}
        for layer in self.names(root, 'layer_names'):
            group = member(root, layer)
            for name in self.names(group, 'weight_names'):
                match = LEAF.fullmatch(name.rpartition('/')[2])
                if not match:
                    raise ValueError(f'the variable {name[:100]!r} is of no known kind')
                self.add(entries, f'{layer}/{OLD_LEAVES.get(match[1], match[1])}', member(group, name))
        return entries

    def numbered(self, file: Any) -> dict[str, np.ndarray]:
        """The layout of Keras 3."""
        entries: dict[str, np.ndarray] = {}
        layers = member(file, 'layers')
        for key in layers:
            layer = member(layers, key)
            variables = member(layer, 'vars') if 'vars' in layer else ()
            if not len(variables):
                continue
            kind = re.sub(r'_\d+$', '', key)
            leaves = next((leaves for leaves in VARIABLES.get(kind, ()) if len(leaves) == len(variables)), None)
            if leaves is None:
                raise ValueError(f'the layer {key[:100]!r} has {len(variables)} variables, which no known layer has')
            (name,) = self.names(variables, 'name') or ('',)
            if not name:
                raise ValueError(
                    "its layers have no names, as early versions of Keras 3 wrote them; load it there and save('x.h5')"
                )
            for number, leaf in enumerate(leaves):
                self.add(entries, f'{name}/{leaf}', member(variables, str(number)))
        return entries

    def names(self, group: Any, attribute: str) -> list[str]:
        """The names in an attribute, or in those that Keras cut a long one into: `attribute`0, 1, ..."""
        numbered = itertools.takewhile(group.attrs.__contains__, (f'{attribute}{part}' for part in itertools.count()))
        names: list[str] = []
        for key in [attribute] if attribute in group.attrs else numbered:
            claimed = group.attrs.get_id(key)
            if math.prod(claimed.shape) * claimed.dtype.itemsize > self.size:
                raise ValueError(f'its attribute {key} claims more names than the file holds')
            found = np.ravel(group.attrs[key]).tolist()
            names += [name.decode() if isinstance(name, bytes) else str(name) for name in found]
        return names

    def add(self, entries: dict[str, np.ndarray], name: str, dataset: Any) -> None:
        """Reads one variable, stored whole and in this file."""
        claimed = math.prod(dataset.shape) * dataset.dtype.itemsize
        if dataset.dtype.kind not in 'fiu' or name in entries:
            raise ValueError(f'{name[:100]!r} is no array of numbers, or is there twice')
        if dataset.is_virtual or dataset.external or dataset.id.get_create_plist().get_nfilters():
            raise ValueError(f'{name[:100]!r} is stored elsewhere or compressed, as Keras never writes it')
        if claimed > min(self.left, dataset.id.get_storage_size()):
            raise ValueError(f'{name[:100]!r} claims {list(dataset.shape)}, more than the file holds')
        self.left -= claimed
        entries[name] = np.asarray(dataset[()])


def member(group: Any, path: str) -> Any:
    """What is at `path` in a group of the file itself: links to elsewhere are refused."""
    import h5py

    for part in path.split('/'):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f'{path[:100]!r} is a link')
        group = group[part]
    return group


if __name__ == '__main__':
    with contextlib.suppress(UserError):
        _read(Path(sys.argv[1]))
