"""Reads the weights in Keras's HDF5 files without Keras.

Layouts: a group a layer, with the names of its variables in an attribute (`save('x.h5')` of all versions and
`save_weights('x.h5')` of Keras 2, which Keras Applications and keras-vggface publish), and Keras 3's `.weights.h5`, a
group a layer in order of creation, with numbered variables. A model inside a model is a group in a group.
"""

import contextlib
import itertools
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError
from fer_jax.utils import limits
from fer_jax.utils.limits import check_limit

READ_SECONDS = 300.0  # of the clock, for a process that waits and computes nothing
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
    """Reads the variables in `path`, in Keras's layout.

    Nothing outside the file is read, whatever it links to, and no array larger than the file is allocated. A separate
    process reads it first: damage among the strings of a Keras 3 file makes the HDF5 library loop for ever.

    Returns:
      {`<layer>/<leaf>`: array}, e.g. 'conv2_block1_1_conv/kernel'.

    Raises:
      UserError: the file is missing, damaged, above a limit, or holds anything but weights.
    """
    if not path.is_file():
        raise UserError(f'{path} is not a file; give a .h5, .weights.h5 or .keras of weights')
    size = path.stat().st_size
    if size > limits.FILE_BYTES:
        raise UserError(f'{path} has {size:,} bytes, at most {limits.FILE_BYTES:,} are read')
    seconds = math.ceil(limits.HDF5_SECONDS * (1 + size / limits.HDF5_BYTES))
    package = str(Path(__file__).parents[3])
    environment = os.environ | {'PYTHONPATH': os.pathsep.join([package, os.environ.get('PYTHONPATH', '')])}
    try:
        command = [sys.executable, '-P', __file__, str(path), str(seconds)]
        status = subprocess.run(command, env=environment, timeout=READ_SECONDS).returncode
    except subprocess.TimeoutExpired:
        raise UserError(f'{path} is damaged: it is not read after {READ_SECONDS:g} s; fetch it again') from None
    if status == -signal.SIGXCPU:
        raise UserError(f'{path} is damaged: it is not read after {seconds} s of processor; fetch it again')
    if status:
        raise UserError(f'{path} is damaged: the HDF5 library ends with {status}; fetch it again')
    return _read(path)


def _read(path: Path) -> dict[str, np.ndarray]:
    import h5py

    try:
        with h5py.File(path, 'r') as file:
            reader = Reader(path.stat().st_size)
            by_names = 'model_weights' in file or {'layer_names', 'layer_names0'} & {*file.attrs}
            entries = reader.named(file) if by_names else reader.numbered(file)
        if not entries:
            raise ValueError('it holds no variables')
        return entries
    except Exception as error:  # a damaged file can make the library raise anything
        raise UserError(f'{path} cannot be read as weights ({type(error).__name__}: {error})') from error


class Reader:
    """A reader of the groups of one file, which reads no more bytes in all than the file's size."""

    def __init__(self, size: int):
        self.size = self.left = size
        self.groups = 0

    def named(self, file: Any) -> dict[str, np.ndarray]:
        """Reads the layout of layer groups, also under `model_weights`."""
        root = member(file, 'model_weights') if 'model_weights' in file else file
        entries: dict[str, np.ndarray] = {}
        for layer in self.names(root, 'layer_names'):
            group = member(root, layer)
            names = self.names(group, 'weight_names')
            modules = {name.rpartition('/')[0] for name in names}
            for name in names:
                module, _, leaf = name.rpartition('/')
                match = LEAF.fullmatch(leaf)
                kind = OLD_LEAVES.get(match[1], match[1]) if match else leaf
                inner = module.removeprefix(f'{layer}/') if len(modules) > 1 else ''  # of a model in a model
                place = f'{layer}/{inner}' if inner else layer
                whole = f'{place}/{kind}' if f'{place}/{kind}' not in entries else f'{place}/{leaf}'
                self.add(entries, whole, member(group, name))
        return entries

    def numbered(self, file: Any) -> dict[str, np.ndarray]:
        """Reads the layout of Keras 3."""
        entries: dict[str, np.ndarray] = {}
        self.add_numbered(entries, file, '', 0)
        return entries

    def add_numbered(self, entries: dict[str, np.ndarray], group: Any, prefix: str, depth: int) -> None:
        """Reads the layers of a model, and of those inside it."""
        check_limit(depth, limits.NESTING, 'groups in groups')
        for key in group:
            if key in ('optimizer', 'vars', 'seed_generator') or not is_group(group, key):
                continue
            self.groups += 1
            check_limit(self.groups, limits.MEMBERS, 'groups')
            layer = member(group, key)
            variables = member(layer, 'vars') if 'vars' in layer else ()
            name = (self.names(variables, 'name') or [''])[0] if len(variables) else ''
            if len(variables):
                if not name:
                    raise ValueError(
                        'its layers have no names, as early versions of Keras 3 wrote them; load it there and '
                        "save('x.h5')"
                    )
                kind = re.sub(r'_\d+$', '', key)
                known = (leaves for leaves in VARIABLES.get(kind, ()) if len(leaves) == len(variables))
                leaves = next(known, tuple(variables))
                for number, leaf in enumerate(leaves):
                    self.add(entries, f'{prefix}{name}/{leaf}', member(variables, str(number)))
            self.add_numbered(entries, layer, prefix if key == 'layers' else f'{prefix}{name or key}/', depth + 1)

    def names(self, group: Any, attribute: str) -> list[str]:
        """Returns the names in an attribute, or in those that Keras cut a long one into: `attribute`0, 1, ..."""
        numbered = itertools.takewhile(group.attrs.__contains__, (f'{attribute}{part}' for part in itertools.count()))
        names: list[str] = []
        for key in [attribute] if attribute in group.attrs else numbered:
            claimed = group.attrs.get_id(key)
            if math.prod(claimed.shape) * claimed.dtype.itemsize > self.size:
                raise ValueError(f'its attribute {key} claims more names than the file holds')
            layer_names = np.ravel(group.attrs[key]).tolist()
            names += [name.decode() if isinstance(name, bytes) else str(name) for name in layer_names]
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
    """Returns the member `path` of a group, which must be in the file itself: links to other files are refused."""
    import h5py

    for part in path.split('/'):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f'{path[:100]!r} is a link')
        group = group[part]
    return group


def is_group(group: Any, key: str) -> bool:
    """Returns whether a member is a group in the file itself."""
    import h5py

    return group.get(key, getclass=True, getlink=True) is h5py.HardLink and group.get(key, getclass=True) is h5py.Group


if __name__ == '__main__':
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[2]), int(sys.argv[2]) + 1))
    with contextlib.suppress(UserError):
        _read(Path(sys.argv[1]))
