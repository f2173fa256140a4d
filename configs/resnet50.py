"""ResNet-50 from ImageNet weights: first the head, then everything.

python -m fer_jax.main --config configs/resnet50.py --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model.name = 'resnet50'
    config.model.dropout = 0.2
    config.data.augment.shift = 0.05
    config.data.augment.scale = 0.1
    config.data.augment.rotate = 10.0
    config.phases = (
        default.phase(epochs=3, rates=default.HEAD_ONLY, learning_rate=1e-3),
        default.phase(
            epochs=10, rates=default.backbone_rate(0.3), learning_rate=3e-4, weight_decay=0.05, warmup_epochs=0.5
        ),
    )
    return config
