"""ResNet-50 from ImageNet weights: first the head, then everything.

fer-jax train --config resnet50 --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from fer_jax.config import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.model.name = 'resnet50'
    config.model.dropout = 0.2
    config.data.augment.shift = 0.05
    config.data.augment.scale = 0.1
    config.data.augment.rotate = 10.0
    config.phases = (
        defaults.phase(epochs=3, rates=defaults.HEAD_ONLY, learning_rate=1e-3),
        defaults.phase(
            epochs=10, rates=defaults.backbone_rate(0.3), learning_rate=3e-4, weight_decay=0.05, warmup_epochs=0.5
        ),
    )
    return config
