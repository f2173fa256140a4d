"""Memory that is freed is there for the next array, on whatever thread, unless the environment says otherwise."""

import os
import subprocess
import sys

import pytest

from fer_jax import malloc

ONCE_MORE = """
import resource, threading
import fer_jax
import numpy as np

def fill(count):
    for _ in range(count):
        np.ones(200 << 17).sum()

def taken(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=fill, args=(count,))
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first, more = taken(1), taken(4)
print(first, more)
"""


def pages(**environment):
    """Pages asked of the kernel for an array of 200 MB, and for four more of them, one after the other."""
    plain = {name: value for name, value in os.environ.items() if name not in malloc.CHOSEN}
    plain['NUMPY_MADVISE_HUGEPAGE'] = '0'
    command = [sys.executable, '-c', ONCE_MORE]
    run = subprocess.run(command, env=plain | environment, capture_output=True, text=True, check=True)
    return tuple(map(int, run.stdout.split()))


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='malloc is told nothing here')
def test_freed_memory_is_kept_unless_the_environment_chooses():
    first, more = pages()
    assert first > 30_000 and more < 1_000
    assert pages(GLIBC_TUNABLES='')[1] > 30_000
