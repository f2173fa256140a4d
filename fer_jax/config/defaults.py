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
    """Returns the `rates` of a phase that trains the head at the full learning rate and the rest at `rate` times it.

    Args:
      rate: factor on the learning rate.

    Returns:
      Pairs (regular expression of a parameter's path, factor); the first that matches counts.
    """
    return (('head/.*', 1.0), ('.*', rate))


def train_from(*stages: str) -> tuple[tuple[str, float], ...]:
    """Returns the `rates` of a phase that trains the named stages and freezes the rest.

    Example: `train_from('layer4', 'head')`.
    """
    return (*((f'{stage}/.*', 1.0) for stage in stages), ('.*', 0.0))


def layer_decay(stages: tuple[str, ...], decay: float) -> tuple[tuple[str, float], ...]:
    """Returns the `rates` of a phase whose factor decays from the last stage to the first.

    Example: `layer_decay(('stem', 'layer1', 'layer2', 'layer3', 'layer4', 'head'), 0.7)`.

    Args:
      stages: stages that have parameters, from input to output.
      decay: factor of each stage divided by the factor of the next one; the factor of the last stage is 1.
    """
    return tuple((f'{stage}/.*', decay**depth) for depth, stage in enumerate(reversed(stages)))


def gradual_unfreezing(stages: tuple[str, ...], **fields: object) -> tuple[ConfigDict, ...]:
    """Returns one phase for each stage (Howard and Ruder 2018): each phase trains one more stage than the one before.

    Args:
      stages: from input to output. The first phase trains the last of them alone, the last phase trains them all;
        parameters outside `stages` stay frozen.
      fields: fields that every phase gets.
    """
    return tuple(phase(rates=train_from(*stages[first:]), **fields) for first in reversed(range(len(stages))))


def augment(preset: str = 'none', **fields: object) -> ConfigDict:
    """Returns the fields of `data.augment`: those of a preset, replaced by `fields` where given.

    The config holds the numbers, not the preset's name, so each can be overridden. fer_jax/data/augmentation/augment.py
    explains them.

    Args:
      preset: 'none', 'light', 'fer' or 'strong'.

    Raises:
      ValueError: there is no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f'augment({preset!r}) is no preset; choose {", ".join(PRESETS)}')
    config = ConfigDict(schema.defaults_of(schema.AUGMENT_TREE))
    config.update(PRESETS[preset])
    config.update(fields)
    return config


def phase(**fields: object) -> ConfigDict:
    """Returns the fields of one phase of training, which starts with fresh optimizer state.

    `augment` overrides fields of `data.augment` for this phase; `augment('none')` turns all off. Where `stop_after`
    ends the phase early, the next one begins at the step at which it would have.

    Args:
      fields: fields that differ from their defaults.
    """
    config = ConfigDict(schema.defaults_of(schema.PHASE_TREE))
    config.update(fields)
    return config


def task(weight: float = 1.0, *, head: str = '', align: float = 0.0, **data: object) -> ConfigDict:
    """Returns a further task, learnt beside the primary one: `config.joint.<name> = task(0.5, name='rafdb')`.

    Every step takes a batch of each task. All tasks share the backbone, and `data.augment`, `placement` and `workers`
    of the primary task. The training loss is the primary loss plus `weight` times the loss of each other task.

    Args:
      weight: factor on the loss of this task.
      head: 'primary' uses the primary task's head; the class names have to agree (see data.rename, data.drop_classes).
        '' makes a head for this task alone.
      align: strength at which the second-order statistics of the head's input are pulled to those of the primary
        task's images (CORAL); the only loss of images without labels (data.label='none').
      data: fields of its `data` that differ from their defaults; `loss` holds its own defaults.
    """
    plain = get_config()
    fields = ConfigDict({name: plain.data[name] for name in plain.data if name not in schema.SHARED})
    fields.update(data)
    return ConfigDict({'weight': weight, 'head': head, 'align': align, 'data': fields, 'loss': plain.loss})


def probe(**fields: object) -> ConfigDict:
    """Returns a grid of heads on frozen features; a config with `config.probe` trains these heads and runs no phases.

    Args:
      fields: fields of `probe` that differ from their defaults.
    """
    config = ConfigDict(schema.defaults_of(schema.PROBE_TREE))
    config.update(fields)
    return config


def get_config() -> ConfigDict:
    """Returns the default config: ResNet-50 from ImageNet weights, one phase on synthetic faces."""
    config = ConfigDict(schema.defaults_of(schema.RUN_TREE))
    config.phases = (phase(),)
    return config
