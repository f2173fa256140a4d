"""Reads MatConvNet networks from MATLAB's .mat files (version 5), such as the original VGG-Face."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fer_jax.errors import UserError

MATLAB = b'MATLAB '  # of version 5 and of 7.3, which is HDF5 behind it
LARGEST = 4 << 30  # bytes; VGG-Face has 1.1 GB


def read_matconvnet(path: Path) -> dict[str, np.ndarray]:
    """The parameters of a `simplenn` network: `<layer>/filters` [h, w, in, out] and `<layer>/biases`.

    Layers are a cell array of structs, in a variable `layers` or `net.layers`, with the name and either the fields
    `filters` and `biases` or a cell `weights` of the two.

    Raises:
      UserError: the file is missing, damaged, of version 7.3, or holds no such network.
    """
    if not path.is_file():
        raise UserError(f'{path} is not a file; give a .mat of a MatConvNet network')
    with path.open('rb') as file:
        head = file.read(128)
    if b'MATLAB 7.3' in head:
        raise UserError(f'{path} is a .mat of version 7.3; save it again with -v7')
    if not head.startswith(MATLAB) or path.stat().st_size > LARGEST:
        raise UserError(f'{path} is not a .mat file of version 5 and at most {LARGEST >> 30} GB')
    from scipy.io import loadmat

    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            held = loadmat(path, variable_names=['layers', 'net'], struct_as_record=True)
        found = held['layers'] if 'layers' in held else held['net']['layers'].item()
        entries: dict[str, np.ndarray] = {}
        for cell in np.ravel(found):
            entries |= _layer(np.ravel(cell)[0])
        if not entries:
            raise ValueError('its layers have no weights')
    except Exception as error:  # a damaged file can make the reader raise anything
        raise UserError(f'{path} cannot be read as a MatConvNet network ({type(error).__name__}: {error})') from error
    return entries


def _layer(layer: Any) -> dict[str, np.ndarray]:
    """The entries of one struct."""
    names = layer.dtype.names or ()
    if 'name' not in names:
        return {}
    name = str(np.ravel(layer['name'])[0])
    if 'weights' in names and layer['weights'].size == 2:
        filters, biases = np.ravel(layer['weights'])
    elif 'filters' in names:
        filters, biases = layer['filters'], layer['biases']
    else:
        return {}
    filters, biases = np.asarray(filters, np.float32), np.asarray(biases, np.float32)
    if not filters.size:
        return {}
    filters = filters.reshape(*filters.shape, *(1,) * (4 - filters.ndim))  # MATLAB drops trailing sizes of 1
    return {f'{name}/filters': filters, f'{name}/biases': biases.reshape(-1)}
