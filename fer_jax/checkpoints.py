"""Lists and verifies the checkpoints of a run: `python -m fer_jax.checkpoints WORKDIR`."""

import argparse
import sys
from pathlib import Path

from fer_jax import cli
from fer_jax.runs import checksums
from fer_jax.runs.checkpoints import digest, step_folders
from fer_jax.utils import bounded_files
from fer_jax.utils.moved import forward
from fer_jax.utils.paths import path_argument

__getattr__ = forward(
    __name__,
    dict.fromkeys(('SELECTABLE', 'Checkpoints', 'parse_select'), 'fer_jax.runs.checkpoints')
    | {'read_spec': 'fer_jax.runs.model_file'},
)


def main(argv: list[str] | None = None) -> int:
    """Lists and verifies the checkpoints of a run.

    Args:
      argv: arguments; None takes those of the process.

    Returns:
      The exit status: 0, 1 where a checkpoint is damaged, or 2 where there are no checkpoints.
    """
    parser = argparse.ArgumentParser(prog='fer-jax checkpoints', description='Lists and verifies checkpoints.')
    parser.add_argument('workdir', type=path_argument, help='folder of the run')
    parser.add_argument('--digest', action='store_true', help='also sha256 of the arrays: equal bits, equal digests')
    arguments = parser.parse_args(argv)
    cli.quiet_logs()
    directory = arguments.workdir / 'checkpoints'
    folders = step_folders(directory)
    if not folders:
        print(f'fer_jax: {directory} holds no checkpoints; give the folder that training wrote', file=sys.stderr)
        return 2
    print(f'{"step":>10}  {"MB":>8}  {"score":>8}  state')
    damaged = False
    for folder in folders:
        reason = checksums.find_damage(folder)
        damaged |= bool(reason)
        megabytes = checksums.size(folder) / 1e6
        content = f'  {digest(folder.absolute())}' if arguments.digest and not reason else ''
        print(f'{folder.name:>10}  {megabytes:>8.1f}  {_score_in(folder):>8}  {reason or "verified"}{content}')
    return int(damaged)


def _score_in(folder: Path) -> str:
    """The selecting metric, larger being better, as Orbax keeps it."""
    try:
        return f'{bounded_files.read_json(folder / "metrics" / "metrics")["score"]:.4f}'
    except (OSError, ValueError, KeyError, TypeError):
        return ''


if __name__ == '__main__':
    cli.run_and_exit(main)
