"""The web service behind the page."""

import base64
import concurrent.futures
import contextlib
import io
import json
import re
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest
from PIL import Image

from fer_jax import serve
from fer_jax.data.imaging.codec import decode
from fer_jax.errors import UserError
from fer_jax.inference import face_service, http_guard, uploads
from fer_jax.inference.face_service import FaceService
from fer_jax.inference.server import Server
from tests.inference.conftest import running
from tests.inference.pictures import header_of, png, red_cells
from tests.wait import LIMIT, wait_for


def form_of(*files):
    """(body, Content-Type) of a form with files, (name, data)."""
    parts = [
        f'--limit\r\nContent-Disposition: form-data; name="pictures"; filename="{name}"\r\n\r\n'.encode()
        + data
        + b'\r\n'
        for name, data in files
    ]
    field = b'--limit\r\nContent-Disposition: form-data; name="comment"\r\n\r\nhello\r\n'
    return b''.join(parts) + field + b'--limit--\r\n', 'multipart/form-data; boundary=limit'


def json_of(*pictures):
    return json.dumps({'pictures': [base64.b64encode(picture).decode() for picture in pictures]})


def lefts(answer):
    return sorted(face['box'][0] for face in answer['faces'])


def test_a_picture_is_answered_as_predict_tells_it(server, ask):
    status, answer = ask(png(red_cells(3, 8)))
    assert status == 200 and (answer['width'], answer['height']) == (480, 320)
    assert lefts(answer) == [80, 240]
    face = answer['faces'][0]
    assert list(face['probabilities']) == list(server.service.predictor.classes)
    assert abs(sum(face['probabilities'].values()) - 1) < 1e-3
    assert ask(png(red_cells()))[1]['faces'] == []


def test_several_pictures_come_as_a_form_or_as_json(ask, monkeypatch):
    def no_file(*arguments):
        raise AssertionError('a file was written')

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, 'rollover', no_file)
    noise = np.random.default_rng(0).integers(0, 90, (900, 900, 3), np.uint8)  # more than Starlette keeps in memory
    noise[..., 0] = 0
    pictures = [png(red_cells(3)), b'hello', png(red_cells(2, 6)), png(noise)]
    assert len(pictures[-1]) > 2**20
    alone = ask(pictures[2])[1]['faces']
    body, kind = form_of(*zip(['a.png', 'b.png', 'c.png', 'd.png'], pictures, strict=True))
    for names, (status, answer) in (
        ('abcd', ask(body, Content_Type=kind)),
        ('1234', ask(json_of(*pictures), Content_Type='application/json')),
    ):
        first, second, third, _ = answer['pictures']
        assert status == 200 and lefts(first) == [80] and lefts(third) == [48, 176]
        assert second['status'] == 415 and 'no picture that can be read' in second['error']
        assert names[1] in second['file'] and names[2] in third['file']
        for face, expected in zip(third['faces'], alone, strict=True):
            assert face['box'] == expected['box']
            np.testing.assert_allclose(
                list(face['probabilities'].values()), list(expected['probabilities'].values()), atol=2e-4
            )
    status, answer = ask(json_of(b'hello', b'hi'), Content_Type='application/json; charset=utf-8')
    assert status == 415 and 'no picture' in answer['error'] and len(answer['pictures']) == 2
    url = 'data:image/png;base64,' + base64.b64encode(pictures[0]).decode()
    assert lefts(ask(json.dumps({'pictures': [url]}), Content_Type='application/json')[1]['pictures'][0]) == [80]


def test_what_cannot_be_looked_at_is_refused_with_the_reason(ask):
    for body, status, reason in (
        (b'hello', 415, 'no picture that can be read'),
        (png(red_cells(3))[:400], 415, 'no picture that can be read'),
        (header_of(8000, 6000), 413, '8000 x 6000 pixels are more than 40,000,000'),
        (header_of(60_000, 60_000), 413, '60000 x 60000 pixels are more than 40,000,000'),
        (bytes(uploads.LARGEST_UPLOAD_BYTES + 1), 413, '20.0 MB; give a picture of at most 20 MB'),
        (b'', 413, '0.0 MB'),
    ):
        got = ask(body)
        assert got[0] == status and reason in got[1]['error'], got
    for body, kind, status, reason in (
        (b'--limit--\r\n', 'multipart/form-data; boundary=limit', 400, 'holds no picture'),
        (b'hello', 'multipart/form-data; boundary=limit', 400, 'the form cannot be read'),
        (b'hello', 'multipart/form-data', 400, 'the form cannot be read'),
        (b'{"pictures": "abcd"}', 'application/json', 400, 'no JSON of the form'),
        (b'{"pictures": [7]}', 'application/json', 400, '{"pictures": ["<base64>", ...]}'),
        (b'[' * 100_000, 'application/json', 400, 'no JSON of the form'),
        (json_of(*[b'x'] * 33), 'application/json', 413, '33 pictures; send at most 32'),
    ):
        got = ask(body, Content_Type=kind)
        assert got[0] == status and reason in got[1]['error'], got
    assert ask(png(red_cells(3)), path='/other')[0] == 404
    assert ask(method='GET', path='/etc/passwd')[0] == 404
    assert ask(method='GET', path='/faces')[0] == ask(method='PUT', path='/faces', body=b'x')[0] == 405
    assert ask(png(red_cells(3)), Origin='http://elsewhere.example')[0] == 403
    assert ask(png(red_cells(3)), Origin='null')[0] == 403
    assert ask(png(red_cells(3)))[0] == 200  # after all of that


def test_a_body_without_a_length_has_the_same_limit(ask):
    chunked = {'Transfer_Encoding': 'chunked'}
    whole = png(red_cells(3))
    assert lefts(ask(iter([whole[:99], whole[99:]]), **chunked)[1]) == [80]
    status, answer = ask(iter([bytes(2**20)] * 21), **chunked)
    assert status == 413 and 'at most 20 MB' in answer['error']


def test_only_kinds_of_pictures_that_start_no_program_are_opened():
    with pytest.raises(UserError, match='no known image format'):
        decode(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n', None, 3, 'x')


def test_it_answers_to_its_own_names_alone(ask):
    """A page of another name that leads here could read answers otherwise, for it is of the same origin."""
    picture, wrong = png(red_cells(3)), 'elsewhere.example:8000'
    status, answer = ask(picture, Host=wrong, Origin=f'http://{wrong}')
    assert status == 421
    assert "not called 'elsewhere.example:8000'; use its address, or start it with --name" in answer['error']
    assert ask(method='GET', path='/', Host=wrong)[0] == ask(method='GET', path='/', Host='')[0] == 421
    assert ask(method='GET', path='/docs', Host=wrong)[0] == 421
    for host in ('localhost', 'LOCALHOST:1', '127.0.0.1', '192.168.1.7:8000', '[::1]:8000', 'faces.example'):
        assert ask(method='GET', path='/', Host=host)[0] == 200
        assert ask(picture, Host=host, Origin=f'https://{host}')[0] == 200


@pytest.mark.parametrize(
    ('origin', 'host', 'accepted'),
    [
        ('https://faces.example', 'faces.example:443', True),
        ('http://127.0.0.1', '127.0.0.1:80', True),
        ('https://ported.example:8443', 'ported.example', True),  # a proxy that drops the port
        ('https://faces.example', '127.0.0.1:8000', True),  # a proxy that passes its own address
        ('http://localhost:9000', 'localhost:8000', False),  # another server of this machine
        ('https://ported.example', 'ported.example:8443', False),
        ('https://elsewhere.example', 'faces.example', False),
        ('http://localhost:x', 'localhost', False),
        ('null', 'localhost', False),
    ],
)
def test_origins_are_compared_with_their_ports(origin, host, accepted):
    names = http_guard.Names('127.0.0.1', ['faces.example', 'ported.example:8443'])
    assert names.has_origin(origin, host) == accepted


def test_a_proxy_may_leave_its_prefix_or_take_it_off(ask):
    for prefix in ('', '/proxied'):
        assert ask(method='GET', path=f'{prefix}/health') == (200, {'status': 'ok'})
        assert ask(png(red_cells(3)), path=f'{prefix}/faces')[0] == 200
        assert "fetch('/proxied/faces'" in ask(method='GET', path=f'{prefix}/')[1]
    assert "fetch('/proxied/faces'" in ask(method='GET', path='/proxied')[1]
    assert ask(method='GET', path='/proxiedx/health')[0] == 404
    assert ask(method='GET', path='/openapi.json')[1]['servers'] == [{'url': '/proxied'}]


def test_checks_of_health_use_any_name_and_head(ask):
    assert ask(method='GET', path='/health', Host='pod.svc.example') == (200, {'status': 'ok'})
    for path in ('/', '/health', '/docs', '/openapi.json'):
        assert ask(method='HEAD', path=path) == (200, '')


def test_ipv6(server):
    try:
        other = Server(('::1', 0), server.service)
    except OSError:
        pytest.skip('there is no IPv6 here')
    with running(other), socket.create_connection(other.address, timeout=LIMIT) as client:
        host = f'[::1]:{other.address[1]}'
        client.sendall(f'GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n'.encode())
        assert client.makefile('rb').read().startswith(b'HTTP/1.1 200 ')


def test_a_picture_that_trickles_in_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(uploads, 'REQUEST_SECONDS', 0.5)
    with socket.create_connection(server.address, timeout=LIMIT) as client:
        client.sendall(b'POST /faces HTTP/1.0\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n')
        with contextlib.suppress(OSError):
            while not select.select([client], [], [], 0.1)[0]:  # no pause, and all of it takes 90 s
                client.sendall(b'x')
        assert client.recv(100).startswith(b'HTTP/1.1 408 ')


@pytest.mark.parametrize('before', [b'', b'GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n'], ids=['first', 'second'])
def test_a_head_that_trickles_in_is_not_waited_for(server, monkeypatch, before):
    monkeypatch.setattr(uploads, 'REQUEST_SECONDS', 0.5)
    with socket.create_connection(server.address, timeout=LIMIT) as client:
        client.sendall(before)
        if before:
            received = b''
            while b'"ok"' not in received:
                received += client.recv(2000)
        deadline = time.monotonic() + LIMIT
        with contextlib.suppress(OSError):
            client.sendall(b'GET / HTTP/1.1\r\n')
            while not select.select([client], [], [], 0.1)[0]:
                client.sendall(b'X: y\r\n')
                assert time.monotonic() < deadline
            assert client.recv(100) == b''


def test_an_answer_that_is_not_read_is_given_up(server, monkeypatch):
    monkeypatch.setattr(uploads, 'IDLE_SECONDS', 0.2)
    monkeypatch.setattr(uploads, 'REQUEST_SECONDS', 0.5)
    with socket.create_connection(server.address, timeout=LIMIT) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                client.sendall(b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n' * 100)
        wait_for(lambda: not server.server_state.connections)


def test_connections_are_bounded(server, ask):
    with contextlib.ExitStack() as stack:
        for _ in range(http_guard.MOST_CONNECTIONS):
            stack.enter_context(socket.create_connection(server.address, timeout=LIMIT))
        wait_for(lambda: len(server.server_state.connections) == http_guard.MOST_CONNECTIONS)
        with pytest.raises(ConnectionError):
            ask(method='GET', path='/')
    wait_for(lambda: not server.server_state.connections)
    assert ask(method='GET', path='/')[0] == 200


def test_of_a_client_that_goes_away_nothing_is_said_but_of_a_fault_is(server, ask, monkeypatch, caplog):
    for request in (
        b'POST /faces HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nx',
        b'no request\r\n\r\n',
        b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n',
    ):
        with socket.create_connection(server.address, timeout=LIMIT) as client:
            client.sendall(request)
    wait_for(lambda: not server.server_state.connections and not server.server_state.tasks)
    assert caplog.text == ''

    def fault(image):
        raise KeyError('fault')

    monkeypatch.setattr(server.service, 'detect', fault)
    assert ask(png(red_cells(3))) == (500, {'error': 'the server failed; its log says why'})
    wait_for(lambda: "KeyError: 'fault'" in caplog.text)


def test_pictures_wait_for_their_turn(server, ask, monkeypatch):
    monkeypatch.setattr(face_service, 'TURN_SECONDS', 0.5)
    go_on, started, detect = threading.Event(), threading.Semaphore(0), server.service.detect

    def slow(image):
        started.release()
        assert go_on.wait(LIMIT)
        return detect(image)

    monkeypatch.setattr(server.service, 'detect', slow)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        try:
            first = [pool.submit(ask, png(red_cells(3))) for _ in range(face_service.MOST_PICTURES)]
            for _ in first:
                assert started.acquire(timeout=LIMIT)
            assert ask(png(red_cells(3)))[0] == 503
        finally:
            go_on.set()
        assert [each.result()[0] for each in first] == [200] * face_service.MOST_PICTURES
    assert ask(png(red_cells(3)))[0] == 200


def test_faces_of_several_requests_are_classified_together(server):
    """While one batch is computed, the faces of the others wait, and form the next."""
    go_on, calls = threading.Event(), []

    def classify(crops):
        calls.append(len(crops))
        assert go_on.wait(LIMIT)
        return crops.mean((1, 2, 3))[:, None] * np.ones(7, np.float32)

    predictor = server.service.predictor
    service = FaceService(predictor, server.service.detect, server.service.cutting)
    service._batches._classify = classify
    other = Server(('127.0.0.1', 0), service)
    from http.client import HTTPConnection

    def send(columns):
        connection = HTTPConnection(*other.address, timeout=LIMIT)
        connection.request('POST', '/faces', png(red_cells(*columns)))
        return json.loads(connection.getresponse().read())['faces']

    with running(other), concurrent.futures.ThreadPoolExecutor() as pool:
        first = pool.submit(send, [3])
        wait_for(lambda: calls)
        rest = [pool.submit(send, columns) for columns in ([1, 5], [2, 6, 10], [4])]
        wait_for(lambda: sum(len(crops) for crops, _ in service._batches._waiting) == 6)
        go_on.set()
        assert [len(first.result()), *(len(each.result()) for each in rest)] == [1, 2, 3, 1]
    assert calls == [1, 6]


def test_class_names_are_text(ask):
    for path in ('/', '/docs'):
        status, page = ask(method='GET', path=path)
        assert status == 200 and '&lt;i&gt;angry&lt;/i&gt;' in page and '{{' not in page and '<i>angry' not in page
        assert not re.search(r'(src|href)=["\']?(https?:)?//', page)  # nothing is loaded from elsewhere


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--workdir={tmp}'], 'holds no run'),
        (['--yunet={tmp}/yunet.onnx'], 'is not a file; give the ONNX file of YuNet'),
        (['--margin=-1'], '--margin=-1.0; expected 0 to 10'),
        (['--port={port}'], 'cannot be served on .*in use.*; choose another --port'),
        (['--port=99999'], '--port=99999 cannot be served on'),
        (['--name=http://x'], "--name='http://x' is no host name; give one such as faces.example"),
        (['--root_path=faces'], "--root_path='faces' is no path; give one such as /faces"),
    ],
)
def test_every_mistake_is_one_message(server, untrained, yunet, tmp_path, capsys, arguments, message):
    given = [argument.format(tmp=tmp_path, port=server.address[1]) for argument in arguments]
    assert serve.main([f'--workdir={untrained}', f'--yunet={yunet}', *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith('fer_jax: ') and error.count('\n') == 1
    assert re.search(message, error)


def test_tiffs_are_read(ask):
    buffer = io.BytesIO()
    Image.fromarray(red_cells(3)).save(buffer, 'TIFF')
    assert lefts(ask(buffer.getvalue())[1]) == [80]


@pytest.mark.slow
def test_a_missing_package_is_named(untrained):
    code = "import sys; sys.modules['uvicorn'] = None; from fer_jax import serve; sys.exit(serve.main(sys.argv[1:]))"
    command = [sys.executable, '-c', code, f'--workdir={untrained}']
    run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    assert run.returncode == 2
    assert run.stderr == "fer_jax: serving needs the package uvicorn; run pip install 'fer_jax[serve]'\n"


def test_a_client_that_asks_first_learns_before_it_sends(server):
    length = uploads.LARGEST_UPLOAD_BYTES + 1
    with socket.create_connection(server.address, timeout=LIMIT) as client:
        head = f'POST /faces HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n'
        client.sendall(head.encode())
        assert client.recv(100).startswith(b'HTTP/1.1 413 ')
