"""A config with every default of the schema, for experiments to start from and to change what differs.

Lists of phases are tuples of ConfigDicts, so that `--config.phases[0].epochs=3` works on the command line.
`python -m fer_jax.main --help_config` says what each field is.
"""

from ml_collections import ConfigDict

from fer_jax.config import schema

ALL = (('.*', 1.0),)
HEAD_ONLY = (('head/.*', 1.0), ('.*', 0.0))

LIGHT = {'flip': 0.5, 'shift': 0.05, 'scale': 0.05}
FER = LIGHT | {'shift': 0.08, 'scale': 0.1, 'rotate': 10.0, 'brightness': 0.1, 'contrast': 0.2, 'erase': 0.25}
STRONG = FER | {'crop': 0.6, 'shear': 0.1, 'saturation': 0.3, 'grey': 0.1, 'erase': 0.5, 'trivial': 0.5, 'mixup': 0.2}
PRESETS: dict[str, dict[str, float]] = {'none': {'flip': 0.0}, 'light': LIGHT, 'fer': FER, 'strong': STRONG}


def backbone_rate(rate: float) -> tuple[tuple[str, float], ...]:
    """The head at the full learning rate, everything below at `rate` times it."""
    return (('head/.*', 1.0), ('.*', rate))


def train_from(*stages: str) -> tuple[tuple[str, float], ...]:
    """The named stages train, everything else is frozen: `train_from('layer4', 'head')`."""
    return (*((f'{stage}/.*', 1.0) for stage in stages), ('.*', 0.0))


def layer_decay(stages: tuple[str, ...], decay: float) -> tuple[tuple[str, float], ...]:
    """The last of `stages`, given from input to output, at the full rate, each other at `decay` times the next one's.

    `layer_decay(('stem', 'layer1', 'layer2', 'layer3', 'layer4', 'head'), 0.7)`: stages with parameters alone.
    """
    return tuple((f'{stage}/.*', decay**depth) for depth, stage in enumerate(reversed(stages)))


def gradual_unfreezing(stages: tuple[str, ...], **fields: object) -> tuple[ConfigDict, ...]:
    """One phase a stage (Howard and Ruder 2018): the last of `stages` alone, then with the one below, ... to all.

    What is not in `stages` stays frozen; `fields` are those of every phase.
    """
    return tuple(phase(rates=train_from(*stages[first:]), **fields) for first in reversed(range(len(stages))))


def augment(preset: str = 'none', **fields: object) -> ConfigDict:
    """The fields of `data.augment`: a preset, 'none', 'light', 'fer' or 'strong', with `fields` in its place.

    A config holds the numbers alone, not the preset's name, so any of them can be overridden and none is hidden. What
    they mean stands in fer_jax/data/augmentation/augment.py.
    """
    if preset not in PRESETS:
        raise ValueError(f'augment({preset!r}) is no preset; choose {", ".join(PRESETS)}')
    config = ConfigDict(schema.defaults_of(schema.AUGMENT_TREE))
    config.update(PRESETS[preset])
    config.update(fields)
    return config


def phase(**fields: object) -> ConfigDict:
    """One phase of training, with fresh optimizer state; `fields` are those that differ from their defaults.

    `augment` overrides fields of `data.augment` for this phase; `augment('none')` turns all off. Where `stop_after`
    ends the phase early, the next one begins at the step at which it would have.
    """
    config = ConfigDict(schema.defaults_of(schema.PHASE_TREE))
    config.update(fields)
    return config


def task(weight: float = 1.0, *, head: str = '', align: float = 0.0, **data: object) -> ConfigDict:
    """A further task, learnt beside the primary one: `config.joint.<name> = task(0.5, name='rafdb')`.

    Every step takes a batch of each task; they share the backbone, and `data.augment`, `placement` and `workers` of
    the primary one. What is minimised is the primary loss and, of each other task, `weight` times its loss.

    Args:
      head: 'primary' tells the primary task's classes with its head, where names agree (data.rename, data.drop_classes
        see to it); '' has a head of its own.
      align: strength at which second-order statistics of what enters the head are pulled to those of the primary
        task's images (CORAL); all there is for images without labels (data.label='none').
      data: fields of its `data` that differ from their defaults; `loss` has its own.
    """
    plain = get_config()
    fields = ConfigDict({name: plain.data[name] for name in plain.data if name not in schema.SHARED})
    fields.update(data)
    return ConfigDict({'weight': weight, 'head': head, 'align': align, 'data': fields, 'loss': plain.loss})


def probe(**fields: object) -> ConfigDict:
    """A grid of heads on frozen features: a config that has it as `config.probe` trains these heads and no phases."""
    config = ConfigDict(schema.defaults_of(schema.PROBE_TREE))
    config.update(fields)
    return config


def get_config() -> ConfigDict:
    """The default config: ResNet-50 from ImageNet weights, one phase on synthetic faces."""
    config = ConfigDict(schema.defaults_of(schema.RUN_TREE))
    config.phases = (phase(),)
    return config
