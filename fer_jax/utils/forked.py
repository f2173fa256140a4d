"""Checks of processes: of forks after JAX had started, which would hang, and of scripts that start workers."""

import os
import sys

from fer_jax.errors import UserError

_parent = 0  # process that had started JAX when it forked this one


def check_not_forked() -> None:
    """Checks that JAX can compute in this process.

    Raises:
      UserError: the process was forked from one in which JAX had started.
    """
    if _parent:
        raise UserError(
            f'process {os.getpid()} was forked from process {_parent}, in which JAX had already started, and JAX hangs '
            "in a fork; start processes with multiprocessing.get_context('spawn'), or load the network in each process "
            'after the fork and use JAX in none before it (gunicorn: without --preload)'
        )


def check_main_guard() -> None:
    """Checks that worker processes can import the running script.

    Raises:
      UserError: the script has no main guard, so that each worker would run it again.
    """
    script = getattr(sys.modules['__main__'], '__file__', None)
    if script and script.endswith('.py') and os.path.isfile(script):
        with open(script, encoding='utf-8', errors='replace') as file:
            text = file.read()
        if '__main__' not in text and 'parent_process' not in text:
            raise UserError(
                f'data.workers starts processes that import {script}, and each would run all of it again; put what it '
                "does below `if __name__ == '__main__':`, or set data.workers=0"
            )


def _note_fork() -> None:
    global _parent
    bridge = sys.modules.get('jax._src.xla_bridge')  # no public function tells whether a backend has started
    if bridge is not None and bridge.backends_are_initialized():
        _parent = os.getppid()


os.register_at_fork(after_in_child=_note_fork)
