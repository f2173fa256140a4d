"""Facial expression recognition by transfer learning, in JAX.

`get_config(name)` makes a config, `train(config, workdir)` trains, `load(workdir)` gives the trained network as a
function of images, `Analyzer(workdir)` finds and classifies the faces of photographs and videos.
"""

from typing import Any

from fer_jax.utils.forked import check_not_forked

__version__ = '0.1.0'
__all__ = ['Analyzer', '__version__', 'create_model', 'get_config', 'load', 'train']


def __getattr__(name: str) -> Any:
    """Imports JAX only where it is used: `fer-jax --help` answers at once."""
    if name in __all__:
        check_not_forked()
    if name == 'train':
        from fer_jax.training.train import train

        return train
    if name == 'get_config':
        from fer_jax.config.files import get_config

        return get_config
    if name == 'create_model':
        from fer_jax.pretrained.create import create_model

        return create_model
    if name == 'Analyzer':
        from fer_jax.inference.analyzer import Analyzer

        return Analyzer
    if name == 'load':
        from fer_jax.inference.predictor import load

        return load
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
