"""Where weights come from, how their images are normalised, and under which licence they stand."""

from fer_jax.pretrained.convert import convert, fill
from fer_jax.pretrained.sources import cached_file, convert_file, resolve
from fer_jax.pretrained.torch_reader import read_torch
from fer_jax.pretrained.weights import Preprocessing, Weights, load, save

__all__ = [
    'Preprocessing',
    'Weights',
    'cached_file',
    'convert',
    'convert_file',
    'fill',
    'load',
    'read_torch',
    'resolve',
    'save',
]
