"""VGG-16 with the classic recipe: ImageNet's features frozen, a fresh 4096-4096 classifier, then the last block too.

fer-jax train --config vgg16 --config.data.dir=DIR
"""

from ml_collections import ConfigDict

from fer_jax.config import defaults


def get_config() -> ConfigDict:
    config = defaults.get_config()
    config.model.name = 'vgg16'
    config.model.head = 'mlp'
    config.data.batch_size = 128
    sgd = {'optimizer': 'sgd', 'momentum': 0.9, 'weight_decay': 5e-4}
    config.phases = (
        defaults.phase(epochs=10, rates=defaults.HEAD_ONLY, learning_rate=1e-3, **sgd),
        defaults.phase(epochs=10, rates=defaults.train_from('block5', 'head'), learning_rate=2e-4, **sgd),
    )
    return config
