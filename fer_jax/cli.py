"""What all commands share: log levels, and what becomes of mistakes: one line and a status in place of a traceback."""

import errno
import logging
import runpy
import sys
import traceback
from collections.abc import Callable

from fer_jax.distributed import processes
from fer_jax.errors import UserError
from fer_jax.utils.signals import Stopped

COMMANDS = {
    'train': 'main', 'evaluate': 'evaluate', 'predict': 'predict', 'serve': 'serve', 'export': 'export',
    'report': 'report', 'checkpoints': 'checkpoints', 'prepare': 'prepare_dataset', 'convert': 'convert_weights',
    'preview': 'preview_augmentation', 'pseudo-label': 'pseudo_label', 'group': 'group_faces',
    'cross-evaluate': 'cross_evaluate',
}  # fmt: skip
GOES_ON = 'what was saved is whole, and the same command goes on'
SMALLER = (
    'the memory of the device is full: lower data.batch_size, raise phases[i].accumulate, or set data.placement=stream'
)
REMEDIES = {
    errno.ENOSPC: f'the disk is full: make room, or set FER_JAX_CACHE to another disk; {GOES_ON}',
    errno.EDQUOT: f'the quota is used up: make room, or set FER_JAX_CACHE to another disk; {GOES_ON}',
    errno.EFBIG: f'files of that size are not allowed: raise `ulimit -f`; {GOES_ON}',
    errno.EROFS: 'nothing can be written there: choose another --workdir, or set FER_JAX_CACHE to another folder',
    errno.EACCES: 'this user may not write there: choose another --workdir, or set FER_JAX_CACHE to another folder',
    errno.ENOTDIR: 'a file stands where a folder should: choose another --workdir',
    errno.EIO: f'the disk fails; {GOES_ON}, from the newest checkpoint that can be read',
}


def quiet_logs() -> None:
    """Hides what Orbax warns of: every save without a metric, every run that is only read, metadata of old versions."""
    logging.getLogger('absl').setLevel(logging.ERROR)


def run_command(command: Callable[[], int | None], *mistakes: type[Exception]) -> int:
    """Runs a command; returns its exit status: its own, 0 for None, or 2 where the input is wrong.

    A mistake is named in one line, without a traceback; what was stopped by a signal ends with 75.

    Args:
      mistakes: exceptions beside UserError that the user can correct.
    """
    quiet_logs()
    try:
        return command() or 0
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 75
    except Exception as error:
        if not isinstance(error, (UserError, *mistakes)):
            raise
        print(f'fer_jax: {error}', file=sys.stderr)
        return 2


def outcome(command: Callable[[], None]) -> tuple[int, str]:
    """Runs what trains; returns the exit status and what is to be said of it."""
    try:
        command()
    except Stopped as stopped:
        return 75, str(stopped)
    except UserError as error:
        return 2, f'fer_jax: {error}'
    except OSError as error:
        if error.errno in REMEDIES:
            return 2, f'fer_jax: {error}; {REMEDIES[error.errno]}'
        return crashed()
    except RuntimeError as error:  # of which JAX's is a kind
        if 'RESOURCE_EXHAUSTED' in str(error):
            return 2, f'fer_jax: {str(error).splitlines()[0]}; {SMALLER}; {GOES_ON}'
        return crashed()
    except (Exception, KeyboardInterrupt):
        return crashed()
    return 0, ''


def crashed() -> tuple[int, str]:
    """Raises the exception that is being handled; of several processes the others have to be told."""
    if processes.count() == 1:
        raise
    return 1, traceback.format_exc()


def main() -> None:
    """Runs `fer-jax NAME ...` as `python -m fer_jax.<module> ...`."""
    name, *rest = sys.argv[1:] or ['']
    if name not in COMMANDS:
        print(f'usage: fer-jax {" | ".join(COMMANDS)} ...; fer-jax NAME --help says more', file=sys.stderr)
        sys.exit(2)
    sys.argv = [f'fer-jax {name}', *rest]
    runpy.run_module(f'fer_jax.{COMMANDS[name]}', run_name='__main__', alter_sys=True)
