"""The classic transfer recipe: VGG16's ImageNet features frozen, a fresh 4096-4096 classifier with dropout 0.5.

    python -m fer_jax.main --config configs/vgg16_transfer.py
    python -m fer_jax.main --config configs/vgg16_transfer.py --config.data.name= --config.data.dir=DIR

SGD, batch 128, cross-entropy, the best checkpoint by validation accuracy. The first needs FER2013 prepared, see
docs/datasets.md; both need the weights, see scripts/convert_weights.py.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    config = default.get_config()
    config.model.name = 'vgg16'
    config.model.head = 'mlp'
    config.data.name = 'fer2013'
    config.data.batch_size = 128
    config.checkpoint.select = 'validation/accuracy'
    config.phases = (
        default.phase(
            epochs=20,
            rates=default.HEAD_ONLY,
            optimizer='sgd',
            learning_rate=1e-3,
            momentum=0.9,
            schedule='constant',
        ),
    )
    return config
