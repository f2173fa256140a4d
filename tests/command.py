"""The training command, called in the process of the test."""

import subprocess
from typing import Any

from fer_jax import main


def call_main(capsys: Any, *arguments: str) -> subprocess.CompletedProcess:
    """Run `python -m fer_jax.main` with these arguments; return its status and what it printed.

    A process of its own takes seconds to import JAX.
    """
    argv = ['fer_jax', *arguments]
    capsys.readouterr()
    status = main.main(argv)
    return subprocess.CompletedProcess(argv, status, *capsys.readouterr())
