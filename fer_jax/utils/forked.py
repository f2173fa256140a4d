"""Processes that were forked after JAX had started: its threads are missing there, and every computation would hang."""

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


def _note_fork() -> None:
    global _parent
    bridge = sys.modules.get('jax._src.xla_bridge')  # no public function tells whether a backend has started
    if bridge is not None and bridge.backends_are_initialized():
        _parent = os.getppid()


os.register_at_fork(after_in_child=_note_fork)
