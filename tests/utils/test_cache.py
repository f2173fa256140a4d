"""Compiled programs are kept by default, where the user says or in fer_jax's own folder."""

import os
import subprocess
import sys

import pytest

CODE = """
import jax
from fer_jax.utils import cache

cache.use_compilation_cache()
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize('named', [False, True])
def test_programs_are_kept(tmp_path, named):
    environment = os.environ | {'FER_JAX_CACHE': str(tmp_path / 'ours')}
    environment |= {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'theirs') if named else ''}
    done = subprocess.run([sys.executable, '-c', CODE], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / 'theirs' if named else tmp_path / 'ours' / 'xla')
