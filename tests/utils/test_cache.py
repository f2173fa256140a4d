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
def test_a_folder_that_cannot_be_written_ends_nothing(tmp_path, named):
    (tmp_path / 'file').write_text('')
    environment = os.environ | {'FER_JAX_CACHE': str(tmp_path / 'file')}
    environment |= {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'file' / 'x') if named else ''}
    code = f'{CODE}\nprint(jax.jit(lambda x: x + 1)(1))'
    command = [sys.executable, '-W', 'error', '-c', code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == 'None\n2\n' and done.stderr == ''


@pytest.mark.parametrize('named', [False, True])
def test_programs_are_kept(tmp_path, named):
    environment = os.environ | {'FER_JAX_CACHE': str(tmp_path / 'ours')}
    environment |= {'JAX_COMPILATION_CACHE_DIR': str(tmp_path / 'theirs') if named else ''}
    done = subprocess.run([sys.executable, '-c', CODE], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / 'theirs' if named else tmp_path / 'ours' / 'xla')
