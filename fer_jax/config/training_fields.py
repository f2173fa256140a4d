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
    Field('phases[i].epochs', 'float', 1.0, 'how often every training image is seen', above=0, high=LARGEST_EPOCHS),
    Field(
        'phases[i].rates', 'list of (regex, float)', (('.*', 1.0),), 'which parameters train: (pattern of '
        '<stage>/<parameter path>, multiplier of the learning rate); the first match wins, 0 freezes',
        low=0, high=1_000_000, needed=True,
    ),
    Field(
        'phases[i].batch_norm', 'str', 'by_rates', 'which BatchNorms of the stages that train use the statistics of '
        "the batch and move their running ones: 'by_rates', those of which scale or bias trains; 'frozen', none; "
        "'train', all",
        choices=BATCH_NORM,
    ),
    Field('phases[i].optimizer', 'str', 'adamw', 'optimizer', choices=OPTIMIZERS),
    Field('phases[i].learning_rate', 'float', 1e-3, 'largest learning rate', above=0, high=1_000_000),
    Field('phases[i].weight_decay', 'float', 0.0, 'of kernels; biases and BatchNorm have none', low=0, high=1000),
    Field('phases[i].momentum', 'float', 0.9, 'of sgd', low=0, below=1),
    Field('phases[i].nesterov', 'bool', False, 'whether the momentum of sgd looks ahead'),
    Field('phases[i].clip', 'float', 0.0, 'largest global norm of the gradient; 0 for none', low=0, high=1_000_000_000),
    Field(
        'phases[i].sam', 'float', 0.0, 'radius, such as 0.05, of sharpness-aware minimisation; 0 for none',
        low=0, high=1000,
    ),
    Field(
        'phases[i].l2_sp', 'float', 0.0, 'strength, such as 0.01, of the pull toward the source weights; 0 for none',
        low=0, high=1000,
    ),
    Field(
        'phases[i].ema', 'float', 0.0, 'decay, such as 0.999, of moving averages, which are then scored and kept; 0 '
        'for none', low=0, below=1,
    ),
    Field(
        'phases[i].accumulate', 'int', 1, 'microbatches that each batch is cut into, to save memory', low=1, high=65_536
    ),
    Field('phases[i].schedule', 'str', 'cosine', 'how the learning rate goes on after the warm-up', choices=SCHEDULES),
    Field(
        'phases[i].warmup_epochs', 'float', 0.0, 'epochs in which the learning rate rises', low=0, high=LARGEST_EPOCHS
    ),
    Field(
        'phases[i].step_epochs', 'float', 1.0, 'of the schedules step and exponential: epochs after which it is '
        'multiplied by step_factor',
        low=0, high=LARGEST_EPOCHS,
    ),
    Field(
        'phases[i].step_factor', 'float', 0.5, 'of the schedules step, exponential and plateau: what multiplies it',
        above=0, high=1000,
    ),
    Field(
        'phases[i].patience', 'int', 2, 'of the schedule plateau: evaluations without a better score that it waits',
        low=0, high=1_000_000,
    ),
    Field(
        'phases[i].cache_views', 'int', 0, '0 for no cache, or of how many views of each image the outputs of the '
        'frozen stages are kept: 1 is the plain image', low=0, high=10_000,
    ),
    Field('phases[i].cache_dtype', 'str', 'float32', 'type of what is kept', choices=DTYPES),
    Field(
        'phases[i].stop_after', 'int', 0, 'evaluations without a better score that end the phase; 0 for none',
        low=0, high=1_000_000,
    ),
    Field('phases[i].augment', 'fields of data.augment', {}, 'what differs in this phase from data.augment'),
    Field(
        'phases[i].image_size', 'int', 0, 'side in pixels at which this phase trains, up to model.image_size; 0 for '
        'that', low=8, high=4096, also=(0,),
    ),
)  # fmt: skip

TASK = (
    Field('joint.<name>.weight', 'float', 1.0, 'factor of its loss beside the primary one', low=0, high=1_000_000),
    Field(
        'joint.<name>.head', 'str', '', "'primary' tells the primary task's classes with its head; '' has its own",
        choices=('', 'primary'),
    ),
    Field(
        'joint.<name>.align', 'float', 0.0, 'strength at which its features are pulled to those of the primary task '
        '(CORAL); 0 for none', low=0, high=1_000_000,
    ),
    Field('joint.<name>.data', 'fields of data', {}, 'its images, without augment, placement and workers'),
    Field('joint.<name>.loss', 'fields of loss', {}, 'its loss'),
)  # fmt: skip

PROBE = (
    Field(
        'probe.stages', 'list of str', ('blocks3', 'blocks4', 'blocks5'), 'stages whose outputs the heads read',
        needed=True,
    ),
    Field('probe.pool', 'int', 3, "cells a side that each stage's output is averaged to", low=1, high=4096),
    Field('probe.mirror', 'bool', True, 'also of the mirror images, in training and in the mean of a test'),
    Field('probe.dtype', 'str', 'bfloat16', 'type of the features on disk', choices=DTYPES),
    Field(
        'probe.learning_rates', 'list of float', (1e-4, 3e-4, 1e-3, 3e-3), 'of the softmax heads', above=0, high=1e38,
        needed=True,
    ),
    Field(
        'probe.weight_decays', 'list of float', (0.01, 0.1, 1.0, 3.0), 'of the softmax heads', low=0, high=1e38,
        needed=True,
    ),
    Field('probe.seeds', 'list of int', (0,), 'of the softmax heads', low=0, high=LARGEST_SEED, needed=True),
    Field('probe.ridge', 'list of float', (1e-3, 1e-2, 0.1, 1.0), 'strengths of closed-form heads', above=0, high=1e38),
    Field('probe.epochs', 'int', 10, 'of the softmax heads', low=1, high=LARGEST_EPOCHS),
    Field('probe.batch_size', 'int', 256, 'of the softmax heads', low=1, high=1_000_000),
)  # fmt: skip

TASKS_AND_PHASES = (
    Field('joint', 'tasks', {}, 'further tasks, learnt beside the primary one; fer_jax.config.defaults.task makes one'),
    Field('phases', 'phases', (), 'phases of training, one after the other; fer_jax.config.defaults.phase makes one'),
)

FRAME = (
    Field(
        'checkpoint.every', 'float', 1.0, 'epochs between evaluations, at which the state is saved', low=0.001,
        high=LARGEST_EPOCHS,
    ),
    Field(
        'checkpoint.select', 'str', 'validation/accuracy', 'validation score that chooses the checkpoint: on the test '
        'split the choice would make the score optimistic',
        choices=tuple(f'validation/{metric}' for metric in SELECTABLE),
    ),
    Field(
        'on_nonfinite', 'str', 'stop', "when an update is not finite: 'skip' leaves the step out and goes on",
        choices=ON_NONFINITE,
    ),
    Field('max_skipped', 'int', 10, "steps of a phase that 'skip' may leave out", low=0, high=1_000_000_000),
    Field('log_every', 'int', 50, 'steps between training records', low=1, high=1_000_000_000),
    Field('parallel.devices', 'int', 0, 'devices of all processes together; 0 for all there are', low=0, high=65_536),
    Field(
        'parallel.optimizer', 'str', 'replicated', "'sharded': each device holds a part of the optimizer's state "
        '(ZeRO-1)', choices=OPTIMIZER_STATE,
    ),
    Field(
        'parallel.wait', 'float', 300.0, 'seconds in which all processes have to come, see docs/cluster.md', above=0,
        high=LONGEST_WAIT_SECONDS,
    ),
    Field(
        'parallel.lost_after', 'float', 60.0, 'seconds without a sign of life after which a process is given up',
        low=0.1, high=LONGEST_WAIT_SECONDS,
    ),
    Field(
        'parallel.stuck_after', 'float', 900.0, 'seconds after which a step has to have ended', low=0.1,
        high=LONGEST_WAIT_SECONDS,
    ),
    Field(
        'parallel.remat', 'list of str', (), 'stages, such as stem and layer1, that are computed again for the '
        'gradient, to save memory',
    ),
    Field('deterministic', 'bool', False, 'give up speed on GPUs for the same numbers in every run'),
)  # fmt: skip

SEED = (Field('seed', 'int', 0, 'of initial weights, order, augmentation and dropout', low=0, high=LARGEST_SEED),)
