"""ResNet-18 from scratch on FER2013 at 64 px.

fer-jax train --config fer2013_resnet18 --workdir runs/fer2013_resnet18

PrivateTest 64.7 % [63.1, 66.2] official (n = 3,589), 63.2 % [61.5, 64.8] clean (n = 3,275), in 43 minutes on 2 cores.
"""

from ml_collections import ConfigDict

from fer_jax.config import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.model.name = 'resnet18'
    config.model.weights = 'scratch'
    config.model.image_size = 64
    config.model.channels = 1
    config.data.name = 'fer2013'
    config.data.batch_size = 96
    config.data.augment.shift = 0.06
    config.data.augment.scale = 0.08
    config.parallel.devices = 2  # on CPU: two devices of one core each
    config.phases = (defaults.phase(epochs=11, learning_rate=2.5e-3, weight_decay=0.1, warmup_epochs=1.0),)
    return config
