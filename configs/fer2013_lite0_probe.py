"""A linear head on the frozen ImageNet backbone of EfficientNet-Lite0, on FER2013.

fer-jax train --config fer2013_lite0_probe --workdir runs/fer2013_lite0_probe

PrivateTest 48.1 % [46.5, 49.8] official (n = 3,589), 47.2 % [45.5, 48.9] clean (n = 3,275), in 3 minutes on 2 cores.
"""

from ml_collections import ConfigDict

from fer_jax.config import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.model.name = 'efficientnet_lite0'
    config.model.image_size = 96
    config.data.name = 'fer2013'
    config.data.batch_size = 128
    config.parallel.devices = 2  # on CPU: two devices of one core each
    config.phases = (defaults.phase(epochs=2, rates=defaults.HEAD_ONLY, learning_rate=3e-3),)
    return config
