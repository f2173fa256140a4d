"""The network that comes with fer_jax, EfficientNet-Lite0 trained on FER+, and its fine-tuning on FER2013.

    fer-jax train --config release --workdir runs/ferplus
    fer-jax train --config release:fer2013 --workdir runs/fer2013

The first learns the votes of FER+ for eight expressions. The second starts from the network that came of the first and
is shipped as `release`, and learns FER2013's own labels; its result is in docs/results/accuracy.md, and is not shipped.
Both sets have the same images in the same splits.
`scripts/make_release.py` turns a finished run into package data.
"""

from ml_collections import ConfigDict

from fer_jax.config import defaults

EPOCHS = {'ferplus': 12.0, 'fer2013': 8.0}


def get_config(labels: str = 'ferplus') -> ConfigDict:
    if labels not in EPOCHS:
        raise ValueError(f'{labels!r} is no form; choose release, release:ferplus or release:fer2013')
    config = defaults.get_config()
    config.model.name = 'efficientnet_lite0'
    config.model.image_size = 112
    config.model.dropout = 0.2
    config.data.name = labels
    config.data.batch_size = 64
    config.data.augment = defaults.augment('fer', mixup=0.2)
    config.checkpoint.every = 2.0
    if labels == 'ferplus':
        config.data.target = 'cross_entropy'
        rate = 4e-3
    else:
        config.model.weights = 'release'
        config.loss.label_smoothing = 0.1
        rate = 2e-3
    config.phases = (
        defaults.phase(
            epochs=EPOCHS[labels], learning_rate=rate, weight_decay=0.02, warmup_epochs=0.3, clip=5.0, ema=0.999
        ),
    )
    return config
