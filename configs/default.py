"""Every key with its default, as a config to begin with; what other configs take from it is in `fer_jax.config`."""

from fer_jax.config.defaults import (
    ALL,
    FER,
    HEAD_ONLY,
    LIGHT,
    STRONG,
    augment,
    backbone_rate,
    get_config,
    gradual_unfreezing,
    layer_decay,
    phase,
    probe,
    task,
    train_from,
)

__all__ = [
    'ALL', 'FER', 'HEAD_ONLY', 'LIGHT', 'STRONG', 'augment', 'backbone_rate', 'get_config', 'gradual_unfreezing',
    'layer_decay', 'phase', 'probe', 'task', 'train_from',
]  # fmt: skip
