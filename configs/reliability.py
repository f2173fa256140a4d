"""Small runs with all that could make a resumed run another one; scripts/robustness/kills.py kills them.

fer-jax train --config reliability:everything --config.data.dir=faces
"""

from ml_collections import ConfigDict

from fer_jax.config import defaults

KINDS = ('everything', 'feature_cache', 'two_devices', 'two_processes')


def get_config(kind: str = 'everything') -> ConfigDict:
    """One of KINDS, given after the file: `--config reliability:feature_cache`."""
    config = defaults.get_config()
    config.model.update({'name': 'resnet18', 'weights': 'scratch', 'image_size': 32, 'channels': 1, 'dropout': 0.3})
    config.data.update({'name': '', 'batch_size': 16})
    config.log_every = 1
    both = {'ema': 0.9, 'accumulate': 2}
    if kind == 'feature_cache':
        config.data.augment = defaults.augment('fer')
        frozen = defaults.train_from('layer4', 'head')
        config.phases = (defaults.phase(epochs=3, rates=frozen, cache_views=3, ema=0.9),)
    else:
        config.data.augment = defaults.augment('strong')
        config.phases = (
            defaults.phase(epochs=1, rates=defaults.HEAD_ONLY, learning_rate=1e-2, **both),
            defaults.phase(
                epochs=2, optimizer='sgd', learning_rate=0.02, weight_decay=1e-4, schedule='plateau', **both
            ),
        )
    if kind in ('two_devices', 'two_processes'):
        config.parallel.devices = 2
        config.data.placement = 'stream'
    if kind == 'two_processes':
        config.parallel.update({'optimizer': 'sharded', 'wait': 60.0})
    return config
