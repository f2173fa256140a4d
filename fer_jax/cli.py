"""The command `fer-jax`, and what all commands share: log levels, exit status, and one message for a mistake."""

import codecs
import logging
import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import NamedTuple, NoReturn

from fer_jax import __version__
from fer_jax.distributed import processes
from fer_jax.errors import UserError
from fer_jax.utils import disk_faults
from fer_jax.utils.choices import nearest
from fer_jax.utils.signals import STOP, Stopped

# Before JAX is imported: XLA reports a compilation of two minutes as an error, and asks for a bug report.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')


class Command(NamedTuple):
    """A subcommand of `fer-jax`: the name of its module in fer_jax, and one line of help."""

    module: str
    help: str


COMMANDS = {
    'train': Command('main', 'train a network, or resume a run'),
    'evaluate': Command('evaluate', 'score runs on a split or on another data set, and compare them'),
    'predict': Command('predict', 'find faces in photographs and videos, and classify them'),
    'serve': Command('serve', 'open a page to try a network on pictures or the camera'),
    'export': Command('export', 'write a network for other programs: ONNX, StableHLO, torchvision, Keras'),
    'report': Command('report', 'write the HTML report of a run, or compare runs'),
    'checkpoints': Command('checkpoints', 'list and verify the checkpoints of a run'),
    'prepare': Command('prepare_dataset', 'prepare and examine a data set, and crop faces'),
    'convert': Command('convert_weights', 'convert weights of torch, Keras, TensorFlow.js, dlib or MatConvNet'),
    'preview': Command('preview_augmentation', 'draw the augmented images of a config'),
    'pseudo-label': Command('pseudo_label', 'label images with a trained network'),
    'group': Command('group_faces', 'cluster images without labels'),
    'cross-evaluate': Command('cross_evaluate', 'score every run on every data set'),
}
SMALLER = (
    'the memory of the device is full: lower data.batch_size, raise phases[i].accumulate, or set data.placement=stream'
)


def quiet_logs() -> None:
    """Hides warnings of Orbax, and tracebacks of its threads: what failed in them is raised as well."""
    logging.getLogger('absl').setLevel(logging.CRITICAL)


def run_command(command: Callable[[], int | None], *mistakes: type[Exception]) -> int:
    """Runs a command and returns its exit status.

    An exception that the user can correct is printed in one line, without a traceback; other exceptions are raised.

    Args:
      command: returns an exit status, or None for 0.
      mistakes: types of exceptions, beside UserError, that the user can correct.

    Returns:
      The status of the command, 2 where an input is wrong, or 75 where a signal stopped it.
    """
    quiet_logs()
    try:
        return command() or 0
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return 75
    except Exception as error:
        message = str(error) if isinstance(error, (UserError, *mistakes)) else disk_faults.describe_fault(error)
        if not message:
            raise
        print(f'fer_jax: {message}', file=sys.stderr)
        return 2


def outcome(command: Callable[[], None]) -> tuple[int, str]:
    """Runs a training command and returns its exit status with a message.

    Args:
      command: the command.

    Returns:
      0 and '' where it finished; 75 where a signal stopped it; 2 where an input is wrong or a resource is exhausted; 1
      and the traceback for other exceptions with several processes.

    Raises:
      Exception: any other exception of the command, with a single process.
    """
    try:
        command()
    except Stopped as stopped:
        return 75, str(stopped)
    except UserError as error:
        return 2, f'fer_jax: {error}'
    except Exception as error:
        if message := disk_faults.describe_fault(error):
            return 2, f'fer_jax: {message}'
        if isinstance(error, RuntimeError) and 'RESOURCE_EXHAUSTED' in str(error):  # JAX's is a kind of it
            return 2, f'fer_jax: {str(error).splitlines()[0]}; {SMALLER}; {disk_faults.GOES_ON}'
        return crashed()
    except KeyboardInterrupt:
        return crashed()
    return 0, ''


def crashed() -> tuple[int, str]:
    """Raises the exception that is being handled; with several processes returns exit status 1 and its traceback.

    The traceback is returned so that the other processes can be informed first.
    """
    if processes.count() == 1:
        raise
    return 1, traceback.format_exc()


def run_and_exit(main: Callable[[], int]) -> NoReturn:
    """Runs a command as this process, and ends the process with its exit status.

    Where Python would take file names and output for ASCII (LC_ALL=C with PYTHONUTF8=0), the process starts anew in
    UTF-8 mode. Signals that arrive at the end are ignored. Where the reader of the output has closed it, as after `|
    head -1`, the process ends without a message, as a program that SIGPIPE ends.

    Args:
      main: runs the command and returns its exit status.
    """
    if codecs.lookup(sys.getfilesystemencoding()).name == 'ascii' and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, '-X', 'utf8', *sys.orig_argv[1:]])
    try:
        try:
            status = main()
        except SystemExit as ended:  # argparse's, after --help
            status = ended.code  # type: ignore[assignment]
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its exit
        status = 128 + signal.SIGPIPE
    if status:
        disk_faults.silence_threads()
    for number in set(STOP) - {signal.SIGINT}:  # there are no more handlers while the interpreter winds up
        signal.signal(number, signal.SIG_IGN)
    sys.exit(status)


def _reader_has_gone() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def usage() -> str:
    """Returns the help text of `fer-jax`, with one line per command."""
    lines = [f'  {name:<{max(map(len, COMMANDS))}}  {command.help}' for name, command in COMMANDS.items()]
    return '\n'.join(
        [
            'usage: fer-jax COMMAND ...    for example: fer-jax train --config quickstart',
            '',
            'Facial expression recognition by transfer learning, in JAX.',
            '',
            *lines,
            '',
            'fer-jax COMMAND --help prints the flags of a command, fer-jax --version the version.',
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Runs `fer-jax NAME ...`, which is `python -m fer_jax.<module> ...`, and returns the exit status.

    Args:
      argv: name of the command and its arguments; None takes those of the process.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ['']
    if name in ('--help', '-h', 'help'):
        print(usage())
        return 0
    if name == '--version':
        print(f'fer_jax {__version__}')
        return 0
    if name not in COMMANDS:
        print(f'fer_jax: {name!r} is not a command; {nearest(name, COMMANDS)}' if name else usage(), file=sys.stderr)
        return 2
    command = import_module(f'fer_jax.{COMMANDS[name].module}').main
    return command([f'fer-jax {name}', *rest] if name == 'train' else rest)


def start() -> NoReturn:
    """Runs `fer-jax` as this process and ends the process with its exit status."""
    run_and_exit(main)


if __name__ == '__main__':
    start()
