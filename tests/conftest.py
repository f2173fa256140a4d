import gc
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['FER_JAX_OFFLINE'] = '1'
# A program is compiled once for all tests, workers and processes that they start; `pytest --cache-clear` empties it.
PROGRAMS = Path(__file__).parents[1] / '.pytest_cache' / 'd' / 'xla'
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(PROGRAMS))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.2')


@pytest.fixture(scope='module', autouse=True)
def programs_are_let_go():
    """After each file: compiled programs of a hundred networks would fill the memory."""
    yield
    if jax := sys.modules.get('jax'):
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """The folder of real data sets (FER2013, CK+48, photographs, ImageNet samples)."""
    root = Path(os.environ.get('FER_JAX_TEST_DATA', Path(__file__).parents[2] / 'shared' / 'data'))
    if not root.is_dir():
        pytest.skip(f'no real data at {root}; set FER_JAX_TEST_DATA')
    return root
