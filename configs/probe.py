"""What frozen ImageNet features know about expressions: a grid of heads on FER2013, in minutes on two CPU cores.

fer-jax train --config probe --workdir runs/probe

PrivateTest 60.7 % [59.1, 62.3] official (n = 3,589), 59.0 % [57.3, 60.6] clean (n = 3,275); validation 59.7 %. The 20
heads take 26 s; the features, of each image and its mirror image, come at some 210 a second and are kept.
"""

from ml_collections import ConfigDict

from fer_jax.config import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.model.name = 'efficientnet_lite0'
    config.model.image_size = 96
    config.data.name = 'fer2013'
    config.data.augment = defaults.augment('none')
    config.parallel.devices = 2  # on CPU: two devices of one core each
    config.probe = defaults.probe(stages=('blocks3', 'blocks4', 'blocks5'))
    return config
