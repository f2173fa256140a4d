"""A detector that the tests of photographs and videos share."""

import pytest

from tests.data import tiny_yunet


@pytest.fixture(scope='session')
def yunet(tmp_path_factory):
    path = tmp_path_factory.mktemp('yunet') / 'tiny.onnx'
    path.write_bytes(tiny_yunet.encode())
    return path
