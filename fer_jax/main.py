"""Trains: `fer-jax train --config quickstart [--workdir DIR] [--config.key=value ...]`, or `python -m fer_jax.main`."""

import hashlib
import json
import logging
import os
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from fer_jax import __version__, cli
from fer_jax.config import flags as config_flags
from fer_jax.config import reference
from fer_jax.config.files import config_names
from fer_jax.config.flags import checked_config, parse
from fer_jax.distributed import launch, processes
from fer_jax.errors import UserError
from fer_jax.utils.output import lasting_output
from fer_jax.utils.paths import user_path
from fer_jax.utils.signals import stop_request

WORKDIR = flags.DEFINE_string('workdir', '', 'Folder of the run; the same folder again resumes. Empty: a new one.')
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Check everything, compile a step, print what the job needs, and stop.')
PROFILE = flags.DEFINE_bool('profile', False, 'Trace ten steps into WORKDIR/profile.')
LARGEST_BATCH = flags.DEFINE_bool('largest_batch', False, 'Print the largest data.batch_size that fits, and stop.')
FIND_LR = flags.DEFINE_integer(
    'find_lr',
    None,
    'Find the learning rate of this phase, -1 for the last: plot the loss while the rate rises, and stop.',
)

SEEDS = flags.DEFINE_list('seeds', [], '0,1,2: one run per seed in WORKDIR/seed-<n>, with pooled scores.')
FOLDS = flags.DEFINE_enum('folds', None, ['all'], 'Run all config.data.folds in WORKDIR/fold-<n>, with pooled scores.')
ALLOW_CHANGES = flags.DEFINE_bool('allow_changes', False, 'Resume a run with another config.')
ALLOW_OTHER_DATA = flags.DEFINE_bool('allow_other_data', False, 'Resume a run with other images or labels.')
HELP_CONFIG = flags.DEFINE_bool('help_config', False, 'Print every field of a config with type, default and meaning.')
COORDINATOR = flags.DEFINE_string(
    'coordinator', '', 'Address HOST:PORT of process 0 of several, see docs/tutorials/cluster.md.'
)
NUM_PROCESSES = flags.DEFINE_integer('num_processes', 0, 'Number of processes; not needed under SLURM and Open MPI.')
PROCESS_ID = flags.DEFINE_integer('process_id', -1, 'Number of this process, from 0.')


def run(config: ConfigDict) -> None:
    """Trains one run, or several runs of different seeds or folds, according to the flags.

    With --dry_run, --largest_batch or --find_lr it checks the config or measures these instead.

    Args:
      config: checked config.

    Raises:
      UserError: flags contradict each other, or an input is wrong.
    """
    from fer_jax.training import own_faces, repeats, train

    plain = json.loads(config.to_json())
    here = launch.place(os.environ, COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
    rated_phase = FIND_LR.value
    measures = LARGEST_BATCH.value or rated_phase is not None
    if here and (SEEDS.value or FOLDS.value or measures or 'probe' in plain):
        raise UserError('--seeds, --folds, --largest_batch, --find_lr and probes are for one process')
    content = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
    processes.start(here, plain['parallel'], {'config': content, '--workdir': WORKDIR.value, 'version': __version__})
    if SEEDS.value and FOLDS.value:
        raise UserError(f'--seeds={",".join(SEEDS.value)} and --folds={FOLDS.value}; give one of them')
    if PROFILE.value and (SEEDS.value or FOLDS.value or 'probe' in plain):
        raise UserError('--profile is of one training run; leave out --seeds, --folds and probes')
    plain = own_faces.settle(plain, WORKDIR.value)
    if LARGEST_BATCH.value:
        from fer_jax.training import memory

        memory.largest_batch(plain)
        return
    if rated_phase is not None:
        from fer_jax.training import learning_rate_range

        learning_rate_range.suggest(plain, rated_phase, Path('learning_rate.png'))
        return
    chosen_folds = plain['data']['folds'] > config.data.folds and not config.data.fold
    every_fold = bool(FOLDS.value) or (chosen_folds and not (here or SEEDS.value or PROFILE.value))
    if DRY_RUN.value or not (SEEDS.value or every_fold):
        train.train(
            plain,
            WORKDIR.value,
            dry_run=DRY_RUN.value,
            profile=PROFILE.value,
            allow_changes=ALLOW_CHANGES.value,
            allow_other_data=ALLOW_OTHER_DATA.value,
        )
        return
    if ALLOW_CHANGES.value or ALLOW_OTHER_DATA.value:
        raise UserError('--allow_changes and --allow_other_data are of one run; leave out --seeds and --folds')
    workdir = user_path(WORKDIR.value) if WORKDIR.value else train.free_workdir(plain)
    if every_fold:
        repeats.train_folds(plain, workdir)
        return
    if wrong := [seed for seed in SEEDS.value if not seed.strip().isdecimal()]:
        raise UserError(f'--seeds={",".join(SEEDS.value)}: {wrong[0]!r} is no whole number, 0 or more')
    repeats.train_seeds(plain, [int(seed) for seed in SEEDS.value], workdir)


def command(argv: list[str]) -> None:
    """Trains according to the command line, or prints help where it is asked for.

    Args:
      argv: name of the program and its flags.
    """
    if {'--help', '-help', '-h'} & set(argv[1:]):
        described = ''.join(flags.FLAGS.module_help(module) for module in (config_flags, sys.modules[__name__]))
        print(f'{__doc__}\n{described}\n\nConfigs: {", ".join(config_names())}.')
        print('--help_config prints every field of a config.')
        return
    if {'--help_config', '-help_config'} & set(argv[1:]):
        print(reference.help_text())
        return
    with lasting_output(), stop_request():
        parse(argv)
        run(checked_config())


def main(argv: list[str] | None = None) -> int:
    """Runs the training command and returns its exit status.

    Args:
      argv: name of the program and its flags; None takes those of the process.

    Returns:
      0 finished, 1 crashed (one of several processes), 2 wrong input, 69 another process was lost, 75 stopped and
      saved.
    """
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    cli.quiet_logs()
    logging.getLogger('jax').setLevel(logging.WARNING)
    status, message = cli.outcome(lambda: command(list(sys.argv if argv is None else argv)))
    processes.leave(status, message)
    if message:
        with lasting_output():
            print(message, file=sys.stderr)
    return status


if __name__ == '__main__':
    cli.run_and_exit(main)
