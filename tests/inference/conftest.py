"""A detector and a server that several tests share."""

import contextlib
import http.client
import json
import threading

import pytest

from tests.wait import LIMIT, wait_for


@contextlib.contextmanager
def running(server):
    """Runs a server in a thread."""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        yield server
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope='session')
def yunet(tmp_path_factory):
    from tests.data import tiny_yunet

    path = tmp_path_factory.mktemp('yunet') / 'tiny.onnx'
    path.write_bytes(tiny_yunet.encode())
    return path


@pytest.fixture(scope='module')
def server(untrained, yunet):
    from fer_jax.data.imaging import faces
    from fer_jax.inference.face_pipeline import Cutting
    from fer_jax.inference.face_service import FaceService
    from fer_jax.inference.predictor import Predictor
    from fer_jax.inference.server import Server

    predictor = Predictor(untrained)
    predictor.classes = ('<i>angry</i>', *predictor.classes[1:])
    service = FaceService(predictor, faces.detector(yunet), Cutting(0.2))
    names = ['faces.example', 'ported.example:8443']
    server = Server(('127.0.0.1', 0), service, names=names, root_path='/proxied')
    server.service = service
    with running(server):
        yield server


@pytest.fixture
def ask(server):
    """(status, answer) of a request."""

    def send(body=None, method='POST', path='/faces', **headers):
        connection = http.client.HTTPConnection(*server.address, timeout=LIMIT)
        named = {name.replace('_', '-'): value for name, value in headers.items()}
        connection.request(method, path, body, named, encode_chunked='Transfer-Encoding' in named)
        response = connection.getresponse()
        content = response.read().decode()
        connection.close()
        decoded = content and 'json' in response.headers['Content-Type']
        return response.status, json.loads(content) if decoded else content

    return send
