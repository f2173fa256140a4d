"""One message for a disk that fails, whoever raised it."""

import errno
import os
import shutil

import pytest

from fer_jax.errors import UserError
from fer_jax.utils import disk_faults

STORE = 'RESOURCE_EXHAUSTED: Error writing local file: Failed to write: No space left on device [os_error_code=28]'


def raise_from(error, cause):
    raise error from cause


@pytest.mark.parametrize(
    ('error', 'message'),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'x'), r"^\[Errno 28\].*'x'; the disk is full: make room"),
        (ValueError(STORE), '^No space left on device; the disk is full: make room'),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), 'the quota is used up'),
        (RuntimeError(f'<Future> {os.strerror(errno.EIO)}'), '^Input/output error; the disk fails'),
    ],
)
def test_a_fault_is_named_with_its_remedy_whoever_raised_it(tmp_path, error, message):
    with pytest.raises(UserError, match=f'{message}.*GB are free there'), disk_faults.faults_named(tmp_path):
        raise error
    with pytest.raises(UserError, match=message), disk_faults.faults_named(tmp_path):
        raise_from(KeyError('checkpoint'), error)


@pytest.mark.parametrize(
    'error', [ValueError('Checkpoint directory does not exist'), UserError('ours'), OSError(2, 'no')]
)
def test_a_folder_that_went_is_named_and_other_errors_stay(tmp_path, error):
    with pytest.raises(type(error)), disk_faults.faults_named(tmp_path):
        raise error
    run = tmp_path / 'run'
    run.mkdir()
    with pytest.raises(UserError, match='run was removed, or its disk taken away'), disk_faults.faults_named(run):
        shutil.rmtree(run)
        raise error
    run.mkdir()
    with pytest.raises(UserError, match='run was removed, or its disk taken away'), disk_faults.faults_named(run):
        run.rename(tmp_path / 'aside')
        run.mkdir()
        raise error
