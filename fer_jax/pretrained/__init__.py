"""Where weights come from, how their images are normalised, and under which licence they stand."""

from fer_jax.models.preprocessing import Preprocessing
from fer_jax.pretrained.convert import convert, convert_keras
from fer_jax.pretrained.locate import cached_file, convert_file, load_of_any_network, resolve
from fer_jax.pretrained.readers.keras_file import read_keras
from fer_jax.pretrained.readers.torch_file import read_torch
from fer_jax.pretrained.transfer import fill, fresh_prefixes
from fer_jax.pretrained.weights import Weights, load, save

__all__ = [
    'Preprocessing',
    'Weights',
    'cached_file',
    'convert',
    'convert_file',
    'convert_keras',
    'fill',
    'fresh_prefixes',
    'load',
    'load_of_any_network',
    'read_keras',
    'read_torch',
    'resolve',
    'save',
]
