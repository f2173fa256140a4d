"""Facial expression recognition by transfer learning, in JAX.

`get_config(name)` makes a config, `train(config, workdir)` trains, `load(workdir)` gives the trained network as a
function of images, `Analyzer(workdir)` finds and classifies the faces of photographs and videos. `register_network`,
`register_loss` and `register_dataset` add your own.
"""

from importlib import import_module
from typing import Any

from fer_jax.utils.forked import check_not_forked

__version__ = '0.2.0'
PLACES = {
    'Analyzer': 'inference.analyzer',
    'create_model': 'pretrained.create',
    'get_config': 'config.files',
    'load': 'inference.predictor',
    'register_dataset': 'data.sources.prepared',
    'register_loss': 'training.losses',
    'register_network': 'models.registry',
    'train': 'training.train',
}
__all__ = ['__version__', *PLACES]


def __getattr__(name: str) -> Any:
    """Imports JAX only where it is used: `fer-jax --help` answers at once."""
    if name not in PLACES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    check_not_forked()
    return getattr(import_module(f'fer_jax.{PLACES[name]}'), name)
