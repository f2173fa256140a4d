"""The fields of phases, joint tasks and probes, and of the run around them."""

from fer_jax.config.choices import (
    BATCH_NORM,
    DTYPES,
    ON_NONFINITE,
    OPTIMIZER_STATE,
    OPTIMIZERS,
    SCHEDULES,
    SELECTABLE,
)
from fer_jax.config.field import Field

LARGEST_SEED = (1 << 32) - 1
LARGEST_EPOCHS = 1_000_000
LONGEST_WAIT_SECONDS = 30 * 24 * 3600  # seconds

PHASE = (
    Field('phases[i].epochs', 'float', 1.0, 'number of epochs', above=0, high=LARGEST_EPOCHS),
    Field(
        'phases[i].rates', 'list of (regex, float)', (('.*', 1.0),), 'which parameters train: (pattern of '
        '<stage>/<parameter path>, multiplier of the learning rate); the first match wins, 0 freezes',
        low=0, high=1_000_000, needed=True,
    ),
    Field(
        'phases[i].batch_norm', 'str', 'by_rates',
        "which BatchNorms use and update batch statistics, in stages that train: 'by_rates', those with a "
        "trainable scale or bias; 'frozen', none; 'train', all",
        choices=BATCH_NORM,
    ),
    Field('phases[i].optimizer', 'str', 'adamw', 'optimizer', choices=OPTIMIZERS),
    Field('phases[i].learning_rate', 'float', 1e-3, 'maximum learning rate', above=0, high=1_000_000),
    Field(
        'phases[i].weight_decay', 'float', 0.0,
        'weight decay of kernels; biases and BatchNorm have none',
        low=0, high=1000,
    ),
    Field('phases[i].momentum', 'float', 0.9, 'momentum of sgd', low=0, below=1),
    Field('phases[i].nesterov', 'bool', False, 'Nesterov momentum for sgd'),
    Field('phases[i].clip', 'float', 0.0, 'maximum global norm of the gradient; 0 for none', low=0, high=1_000_000_000),
    Field(
        'phases[i].sam', 'float', 0.0,
        'radius of sharpness-aware minimisation, such as 0.05; 0 for none',
        low=0, high=1000,
    ),
    Field(
        'phases[i].l2_sp', 'float', 0.0,
        'strength of the pull toward the initial weights, such as 0.01; 0 for none',
        low=0, high=1000,
    ),
    Field(
        'phases[i].ema', 'float', 0.0,
        'decay of moving averages (EMA), such as 0.999, which are then evaluated and saved; 0 for none',
        low=0, below=1,
    ),
    Field(
        'phases[i].accumulate', 'int', 1,
        'number of microbatches per batch (gradient accumulation)',
        low=1, high=65_536,
    ),
    Field('phases[i].schedule', 'str', 'cosine', 'learning-rate schedule after the warm-up', choices=SCHEDULES),
    Field('phases[i].warmup_epochs', 'float', 0.0, 'epochs of linear warm-up', low=0, high=LARGEST_EPOCHS),
    Field(
        'phases[i].step_epochs', 'float', 1.0,
        'for the schedules step and exponential: epochs between multiplications by step_factor',
        low=0, high=LARGEST_EPOCHS,
    ),
    Field(
        'phases[i].step_factor', 'float', 0.5,
        'for the schedules step, exponential and plateau: factor of the learning rate',
        above=0, high=1000,
    ),
    Field(
        'phases[i].patience', 'int', 2,
        'for the schedule plateau: evaluations without improvement before the rate is lowered',
        low=0, high=1_000_000,
    ),
    Field(
        'phases[i].cache_views', 'int', 0,
        'number of views per image whose frozen features are cached: 1 is the plain image, 0 turns the cache '
        'off',
        low=0, high=10_000,
    ),
    Field('phases[i].cache_dtype', 'str', 'float32', 'type of cached features', choices=DTYPES),
    Field(
        'phases[i].stop_after', 'int', 0,
        'early stopping: evaluations without improvement that end the phase; 0 for none',
        low=0, high=1_000_000,
    ),
    Field('phases[i].augment', 'fields of data.augment', {}, 'fields of data.augment that differ in this phase'),
    Field(
        'phases[i].image_size', 'int', 0,
        'side in pixels of the training images of this phase, up to model.image_size; 0 for model.image_size',
        low=8, high=4096, also=(0,),
    ),
)  # fmt: skip

TASK = (
    Field('joint.<name>.weight', 'float', 1.0, 'weight of its loss', low=0, high=1_000_000),
    Field(
        'joint.<name>.head', 'str', '',
        "'primary' shares the head of the primary task; '' has a head of its own",
        choices=('', 'primary'),
    ),
    Field(
        'joint.<name>.align', 'float', 0.0,
        'strength of the alignment of its features with those of the primary task (CORAL); 0 for none',
        low=0, high=1_000_000,
    ),
    Field('joint.<name>.data', 'fields of data', {}, 'its data set, without augment, placement and workers'),
    Field('joint.<name>.loss', 'fields of loss', {}, 'its loss'),
)  # fmt: skip

PROBE = (
    Field('probe.stages', 'list of str', ('blocks3', 'blocks4', 'blocks5'), 'stages that the heads read', needed=True),
    Field('probe.pool', 'int', 3, 'cells per side to which the output of each stage is averaged', low=1, high=4096),
    Field('probe.mirror', 'bool', True, 'also use mirror images, in training and in the mean of a test'),
    Field('probe.dtype', 'str', 'bfloat16', 'type of the features on disk', choices=DTYPES),
    Field(
        'probe.learning_rates', 'list of float', (1e-4, 3e-4, 1e-3, 3e-3),
        'learning rates of the softmax heads',
        above=0, high=1e38, needed=True,
    ),
    Field(
        'probe.weight_decays', 'list of float', (0.01, 0.1, 1.0, 3.0),
        'weight decays of the softmax heads',
        low=0, high=1e38, needed=True,
    ),
    Field('probe.seeds', 'list of int', (0,), 'seeds of the softmax heads', low=0, high=LARGEST_SEED, needed=True),
    Field(
        'probe.ridge', 'list of float', (1e-3, 1e-2, 0.1, 1.0),
        'regularization strengths of the closed-form ridge heads',
        above=0, high=1e38,
    ),
    Field('probe.epochs', 'int', 10, 'epochs of the softmax heads', low=1, high=LARGEST_EPOCHS),
    Field('probe.batch_size', 'int', 256, 'batch size of the softmax heads', low=1, high=1_000_000),
)  # fmt: skip

TASKS_AND_PHASES = (
    Field('joint', 'tasks', {}, 'further tasks beside the primary one; fer_jax.config.defaults.task makes one'),
    Field('phases', 'phases', (), 'phases of training, one after the other; fer_jax.config.defaults.phase makes one'),
)

FRAME = (
    Field(
        'checkpoint.every', 'float', 1.0,
        'epochs between evaluations; each evaluation saves a checkpoint',
        low=0.001, high=LARGEST_EPOCHS,
    ),
    Field(
        'checkpoint.select', 'str', 'validation/accuracy',
        'validation score that selects the checkpoint; the test split is not allowed, its score would be '
        'optimistic',
        choices=tuple(f'validation/{metric}' for metric in SELECTABLE),
    ),
    Field(
        'checkpoint.keep', 'int', 1,
        'number of newest checkpoints to keep, besides the best one',
        low=1, high=10_000,
    ),
    Field(
        'on_nonfinite', 'str', 'stop',
        "what to do after a NaN or infinite update: stop, or 'skip' the step",
        choices=ON_NONFINITE,
    ),
    Field('max_skipped', 'int', 10, "maximum number of steps that 'skip' skips in a phase", low=0, high=1_000_000_000),
    Field(
        'wandb', 'str', '',
        "project of Weights & Biases for the same logs as TensorBoard (extra wandb); '' for none",
    ),
    Field(
        'auto', 'list of str', (),
        'fields to choose by the number of images, people and classes, if they have their default; see '
        'configs/own_faces.py',
    ),
    Field('log_every', 'int', 50, 'steps between training records', low=1, high=1_000_000_000),
    Field('parallel.devices', 'int', 0, 'number of devices of all processes together; 0 for all', low=0, high=65_536),
    Field(
        'parallel.optimizer', 'str', 'replicated',
        "'sharded': each device holds a part of the optimizer state (ZeRO-1)",
        choices=OPTIMIZER_STATE,
    ),
    Field(
        'parallel.wait', 'float', 300.0,
        'seconds in which all processes must connect, see docs/tutorials/cluster.md',
        above=0, high=LONGEST_WAIT_SECONDS,
    ),
    Field(
        'parallel.lost_after', 'float', 60.0,
        'seconds without a sign of life after which a process counts as lost',
        low=0.1, high=LONGEST_WAIT_SECONDS,
    ),
    Field(
        'parallel.stuck_after', 'float', 900.0,
        'maximum seconds of a step, after which the run counts as stuck',
        low=0.1, high=LONGEST_WAIT_SECONDS,
    ),
    Field(
        'parallel.remat', 'list of str', (),
        'stages, such as stem and layer1, that are computed again in the backward pass, to save memory',
    ),
    Field('deterministic', 'bool', False, 'the same bits in every run on a GPU, at a lower speed'),
)  # fmt: skip

SEED = (Field('seed', 'int', 0, 'seed of initial weights, order, augmentation and dropout', low=0, high=LARGEST_SEED),)
