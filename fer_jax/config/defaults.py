"""Every field of a config with its default. An experiment starts from `get_config()` and changes what differs.

Lists of phases are tuples of ConfigDicts, so that `--config.phases[0].epochs=3` works on the command line.
"""

from ml_collections import ConfigDict

ALL = (('.*', 1.0),)
HEAD_ONLY = (('head/.*', 1.0), ('.*', 0.0))

LIGHT = {'flip': 0.5, 'shift': 0.05, 'scale': 0.05}
FER = LIGHT | {'shift': 0.08, 'scale': 0.1, 'rotate': 10.0, 'brightness': 0.1, 'contrast': 0.2, 'erase': 0.25}
STRONG = FER | {'crop': 0.6, 'shear': 0.1, 'saturation': 0.3, 'grey': 0.1, 'erase': 0.5, 'trivial': 0.5, 'mixup': 0.2}
PRESETS: dict[str, dict[str, float]] = {'none': {}, 'light': LIGHT, 'fer': FER, 'strong': STRONG}


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
    config = ConfigDict(
        {
            'flip': 0.0,
            'crop': 0.0,
            'shift': 0.0,
            'scale': 0.0,
            'rotate': 0.0,
            'shear': 0.0,
            'brightness': 0.0,
            'contrast': 0.0,
            'saturation': 0.0,
            'hue': 0.0,
            'grey': 0.0,
            'blur': 0.0,
            'noise': 0.0,
            'erase': 0.0,
            'erase_area': (0.02, 0.2),
            'erase_aspect': (0.3, 3.3),
            'trivial': 0.0,
            'mixup': 0.0,
            'cutmix': 0.0,
        }
    )
    config.update(PRESETS[preset])
    config.update(fields)
    return config


def phase(**fields: object) -> ConfigDict:
    """One phase of training; it starts with fresh optimizer state.

    `rates` is an ordered table of (regex on `<stage>/<parameter path>`, learning-rate multiplier): the first match
    wins, 0 freezes. `augment` overrides fields of `data.augment` for this phase; `augment('none')` turns all off.
    `image_size` trains at fewer pixels than `model.image_size`; 0 is the same. `sam` is a radius (0.05), `l2_sp` the
    strength of the pull toward the source weights (0.01), `ema` the decay of moving averages (0.999), which are then
    what is scored and kept; `accumulate` cuts each batch into so many microbatches to save memory. `patience`: of
    schedule 'plateau', evaluations; `stop_after` ends the phase after so many evaluations without a better score, and
    the next one begins at the step at which it would have. `cache_views` keeps what the frozen stages compute, of the
    plain image and, above 1, of so many augmented views less one; see docs/feature_cache.md.
    """
    defaults = ConfigDict(
        {
            'epochs': 1.0,
            'rates': ALL,
            'optimizer': 'adamw',  # sgd, adam, radam, lion, lamb, muon
            'learning_rate': 1e-3,
            'weight_decay': 0.0,
            'momentum': 0.9,
            'nesterov': False,
            'clip': 0.0,
            'sam': 0.0,
            'l2_sp': 0.0,
            'ema': 0.0,
            'accumulate': 1,
            'schedule': 'cosine',  # constant, step, exponential, one_cycle, plateau
            'warmup_epochs': 0.0,
            'step_epochs': 1.0,
            'step_factor': 0.5,
            'patience': 2,
            'cache_views': 0,
            'cache_dtype': 'float32',
            'stop_after': 0,
            'augment': ConfigDict(),
            'image_size': 0,
        }
    )
    defaults.update(fields)
    return defaults


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
    fields = {name: plain.data[name] for name in plain.data if name not in ('augment', 'placement', 'workers')}
    fields = ConfigDict(fields)
    fields.update(data)
    return ConfigDict({'weight': weight, 'head': head, 'align': align, 'data': fields, 'loss': plain.loss})


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0

    config.model = ConfigDict()
    config.model.name = 'resnet50'
    config.model.weights = 'imagenet'  # 'scratch', published ones (docs/weights.md), a file, a workdir
    config.model.partial = False  # weights of a smaller or larger network: what agrees is taken
    config.model.head = 'linear'  # or 'mlp': 4096, 4096, dropout
    config.model.head_inputs = ()  # ('layer3', 'layer4'): a linear head reads these stages, averaged
    config.model.dropout = 0.0
    config.model.stochastic_depth = 0.0  # of the last residual block, from 0 for the first
    config.model.image_size = 224
    config.model.channels = 3
    config.model.dtype = 'float32'  # or 'bfloat16': compute; parameters stay float32
    config.model.frozen_dtype = 'float32'  # or 'bfloat16': frozen kernels take half the memory, and are rounded

    config.data = ConfigDict()
    config.data.name = 'synthetic_faces'  # a prepared set, or '' with one of
    config.data.dir = ''  # a folder of class folders
    config.data.manifest = ''  # a .csv or .jsonl that lists images
    config.data.subject = ''  # dir: a regular expression that finds the subject in an image's path
    config.data.label = 'class'  # 'subject': tell who of the training split is shown; 'none': joint tasks, no labels
    config.data.target = 'label'  # votes: 'probability', 'cross_entropy', 'multi_target' (with the loss of that name)
    config.data.annotation = (
        ''  # 'action_units': attributes of the set (loss 'binary_cross_entropy'); levels ('squared_error')
    )
    config.data.rename = ()  # (('contempt', 'neutral'),): classes under other names; of one name, they become one
    config.data.drop_classes = ()  # ('contempt',): leave out their examples
    config.data.train_examples = 0  # 5000: train on so many, chosen by a hash of their ids, classes keep their shares
    config.data.splits = ConfigDict({'train': 'train', 'validation': 'validation', 'test': 'test'})
    config.data.folds = 0  # 10: test on fold `fold`, select on the next one, by subject where subjects are known
    config.data.fold = 0
    config.data.split_seed = 0  # of splits that the set does not come with
    config.data.batch_size = 64
    config.data.balance = 'none'  # 'classes': every class equally often
    config.data.placement = 'auto'  # 'device': all images live there; 'stream': decoded batch by batch
    config.data.workers = 0  # processes that decode a stream; 0: threads
    config.data.augment = augment(flip=0.5)

    config.loss = ConfigDict()
    config.loss.name = 'cross_entropy'  # LOSSES of fer_jax/training/losses.py: 'focal', 'logit_adjusted', ...
    config.loss.label_smoothing = 0.0
    config.loss.class_weights = 'none'  # 'inverse', 'effective', or one number a class
    config.loss.positive_weights = 'none'  # of binary_cross_entropy: 'inverse', or one number an attribute
    config.loss.beta = 0.999  # of effective class weights
    config.loss.gamma = 2.0  # of focal
    config.loss.alpha = 1.0  # of focal: a factor for all classes; class_weights are one a class
    config.loss.tau = 1.0  # of logit_adjusted
    config.loss.q = 0.7  # of generalised_cross_entropy
    config.loss.consistency = 0.0  # 5.0: attention as on the mirror image, for labels that are partly wrong
    config.distil = ConfigDict()  # learn from other networks, see docs/training.md
    config.distil.teachers = ()  # workdirs of finished runs that know these classes
    config.distil.temperature = 4.0
    config.distil.weight = 0.5  # share of the teachers in the loss, the labels have the rest
    config.distil.stages = ()  # ('layer4',): a further head tells these stages' outputs of the teachers
    config.distil.hints = 1.0  # factor of that head's squared error
    config.joint = ConfigDict()  # further tasks by name, see `task`
    config.phases = (phase(),)

    config.checkpoint = ConfigDict({'every': 1.0, 'select': 'validation/accuracy'})  # every: epochs
    config.on_nonfinite = 'stop'  # or 'skip': a step's update that is not finite is left out either way
    config.max_skipped = 10  # steps of a phase that 'skip' may leave out
    config.log_every = 50  # steps between training records
    config.parallel = ConfigDict()
    config.parallel.devices = 0  # 0: all of all processes
    config.parallel.optimizer = 'replicated'  # 'sharded': each device holds a part of the optimizer's state (ZeRO-1)
    config.parallel.wait = 300.0  # seconds in which all processes have to come, see docs/cluster.md
    config.parallel.lost_after = 60.0  # seconds without a sign of life after which a process is given up
    config.parallel.stuck_after = 900.0  # seconds after which a step has to have ended
    config.parallel.remat = ()  # ('stem', 'layer1'): compute these stages again for the gradient, to save memory
    config.deterministic = False
    return config
