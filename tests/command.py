"""The training command, called in the process of the test."""

import subprocess
import sys
from typing import Any
from unittest import mock

from absl.testing import flagsaver

from fer_jax import main


def call_main(capsys: Any, *arguments: str) -> subprocess.CompletedProcess:
    """Run `python -m fer_jax.main` with these arguments; return its status and what it printed.

    A process of its own takes seconds to import JAX. Flags are as before afterwards. ml_collections reads overrides
    from `sys.argv`.
    """
    argv = ['fer_jax', *arguments]
    capsys.readouterr()
    with flagsaver.flagsaver(), mock.patch.object(sys, 'argv', argv):
        status = main.main(argv)
    return subprocess.CompletedProcess(argv, status, *capsys.readouterr())
