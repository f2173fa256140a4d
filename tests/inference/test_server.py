"""The page, driven in Chromium, and the server behind it."""

import base64
import contextlib
import http.client
import io
import json
import re
import select
import shutil
import socket
import struct
import threading
import warnings
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_jax import serve
from fer_jax.data.imaging import faces
from fer_jax.inference import face_pipeline
from fer_jax.inference import server as inference_server
from fer_jax.inference.predictor import Predictor
from tests.data import tiny_yunet
from tests.wait import LIMIT

PHONE, DESKTOP = (390, 844), (1280, 900)


def red_cells(*columns):
    """A blue picture; of each red cell tiny_yunet makes a face."""
    image = np.full((320, 480, 3), (0, 0, 90), np.uint8)
    for column in columns:
        image[128:160, 32 * column : 32 * column + 32] = (255, 0, 0)
    return image


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG')
    return buffer.getvalue()


def header_of(width, height):
    """A PNG of that size in which no pixels follow."""
    whole = png(np.zeros((1, 1), np.uint8))
    body = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return whole[:12] + body + struct.pack('>I', zlib.crc32(body)) + whole[33:]


@pytest.fixture(scope='module')
def server(untrained, tmp_path_factory):
    yunet = tmp_path_factory.mktemp('yunet') / 'tiny.onnx'
    yunet.write_bytes(tiny_yunet.encode())
    predictor = Predictor(untrained)
    predictor.classes = ('<i>angry</i>', *predictor.classes[1:])
    with inference_server.Server(
        ('127.0.0.1', 0), predictor, faces.detector(yunet), face_pipeline.Cutting(0.2)
    ) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def ask(server):
    """(status, answer) of a request."""

    def send(body=None, method='POST', path='/faces', **headers):
        connection = http.client.HTTPConnection(*server.server_address[:2], timeout=LIMIT)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read().decode()
        connection.close()
        return response.status, json.loads(content) if 'json' in response.headers['Content-Type'] else content

    return send


def test_a_picture_is_answered_as_predict_tells_it(server, ask):
    status, answer = ask(png(red_cells(3, 8)))
    assert status == 200 and (answer['width'], answer['height']) == (480, 320)
    assert sorted(face['box'][0] for face in answer['faces']) == [80, 240] and len(answer['faces']) == 2
    face = answer['faces'][0]
    assert list(face['probabilities']) == list(server.predictor.classes)
    assert abs(sum(face['probabilities'].values()) - 1) < 1e-3
    assert ask(png(red_cells()))[1]['faces'] == []


def test_what_cannot_be_looked_at_is_refused_with_the_reason(ask, monkeypatch):
    for body, status, reason in (
        (b'hello', 415, 'no picture that can be read'),
        (png(red_cells(3))[:400], 415, 'no picture that can be read'),
        (header_of(8000, 6000), 413, '8000 x 6000 pixels; at most 40 megapixels'),
        (header_of(60_000, 60_000), 413, 'too many pixels; at most 40 megapixels'),
        (bytes(inference_server.LARGEST_UPLOAD_BYTES + 1), 413, '20.0 MB; give a picture of at most 20 MB'),
        (b'', 413, '0.0 MB'),
    ):
        got = ask(body)
        assert got[0] == status and reason in got[1]['error'], got
    assert ask(png(red_cells(3)), path='/other')[0] == 404
    assert ask(method='GET', path='/etc/passwd')[0] == 404
    assert ask(png(red_cells(3)), Origin='http://elsewhere.example')[0] == 403
    assert ask(iter([b'x']), **{'Transfer-Encoding': 'chunked'})[0] == 411
    assert ask(png(red_cells(3)))[0] == 200  # after all of that


def test_only_kinds_of_pictures_that_start_no_program_are_opened():
    with pytest.raises(inference_server.Refused, match='no picture that can be read'):
        inference_server.check_size(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n')


def test_it_answers_to_its_own_names_alone(ask, server, monkeypatch):
    """A page of another name that leads here could read answers otherwise, for it is of the same origin."""
    picture, wrong = png(red_cells(3)), 'elsewhere.example:8000'
    status, answer = ask(picture, Host=wrong, Origin=f'http://{wrong}')
    assert status == 421
    assert "not called 'elsewhere.example:8000'; use its address, or start it with --name" in answer['error']
    assert ask(method='GET', path='/', Host=wrong)[0] == ask(method='GET', path='/', Host='')[0] == 421
    monkeypatch.setattr(server, 'names', server.names | {'faces.example'})
    for host in ('localhost', 'LOCALHOST:1', '127.0.0.1', '192.168.1.7:8000', '[::1]:8000', 'faces.example'):
        assert ask(method='GET', path='/', Host=host)[0] == 200
        assert ask(picture, Host=host, Origin=f'https://{host}')[0] == 200


def test_a_picture_that_trickles_in_is_not_waited_for(server, monkeypatch):
    monkeypatch.setattr(inference_server, 'REQUEST_SECONDS', 0.5)
    with socket.create_connection(server.server_address[:2], timeout=LIMIT) as client:
        client.sendall(b'POST /faces HTTP/1.0\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n')
        with contextlib.suppress(OSError):
            while not select.select([client], [], [], 0.1)[0]:  # no pause, and all of it takes 90 s
                client.sendall(b'x')
        assert client.recv(100).startswith(b'HTTP/1.0 408 ')


def test_connections_are_bounded(server, ask):
    for _ in range(inference_server.MOST_CONNECTIONS):
        assert server.connections.acquire(timeout=LIMIT)
    try:
        with pytest.raises(ConnectionError):
            ask(method='GET', path='/')
    finally:
        server.connections.release(inference_server.MOST_CONNECTIONS)
    assert ask(method='GET', path='/')[0] == 200


def test_of_a_client_that_goes_away_nothing_is_said_but_of_a_fault_is(server, capsys):
    for fault, said in ((BrokenPipeError(), False), (ConnectionResetError(), False), (KeyError('fault'), True)):
        try:
            raise fault
        except Exception:
            server.handle_error(None, ('203.0.113.7', 1))
        error = capsys.readouterr().err
        assert "KeyError: 'fault'" in error if said else error == ''


def test_pictures_wait_for_their_turn(server, ask, monkeypatch):
    for _ in range(inference_server.MOST_PICTURES):
        server.turns.acquire()
    try:
        with monkeypatch.context() as patched:
            patched.setattr(inference_server, 'IDLE_SECONDS', 2.0)
            assert ask(png(red_cells(3)))[0] == 503
    finally:
        server.turns.release(inference_server.MOST_PICTURES)
    assert ask(png(red_cells(3)))[0] == 200


def test_class_names_are_text(ask):
    status, page = ask(method='GET', path='/')
    assert status == 200 and '&lt;i&gt;angry&lt;/i&gt;, disgust' in page and '{{' not in page and '<i>angry' not in page


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--workdir={tmp}'], 'holds no run'),
        (['--yunet={tmp}/yunet.onnx'], 'is not a file; give the ONNX file of YuNet'),
        (['--margin=-1'], '--margin=-1.0; expected 0 to 10'),
        (['--port={port}'], 'cannot be served on .*in use.*; choose another --port'),
        (['--port=99999'], '--port=99999 cannot be served on'),
    ],
)
def test_every_mistake_is_one_message(server, untrained, tmp_path, capsys, arguments, message):
    (tmp_path / 'tiny.onnx').write_bytes(tiny_yunet.encode())
    given = [argument.format(tmp=tmp_path, port=server.server_address[1]) for argument in arguments]
    assert serve.main([f'--workdir={untrained}', f'--yunet={tmp_path}/tiny.onnx', *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith('fer_jax: ') and error.count('\n') == 1
    assert re.search(message, error)


@pytest.fixture(scope='module')
def browser():
    chromium = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    driver = shutil.which('chromedriver')
    selenium = pytest.importorskip('selenium.webdriver', reason='THE PAGE IS NOT TESTED: there is no selenium')
    if not (chromium and driver):
        warnings.warn('THE PAGE IS NOT TESTED: chromium or chromedriver is missing', stacklevel=1)
        pytest.skip('THE PAGE IS NOT TESTED: apt install chromium chromium-driver')
    options = selenium.ChromeOptions()
    options.binary_location = chromium
    flags = ['headless=new', 'no-sandbox', 'disable-dev-shm-usage', 'disable-gpu']
    for flag in (*flags, 'use-fake-device-for-media-stream', 'use-fake-ui-for-media-stream'):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    yield driver
    driver.quit()


class Page:
    """What its user sees and does."""

    def __init__(self, driver, url, size):
        width, height = size
        metrics = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': size == PHONE}
        driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
        driver.get(url)
        self.driver = driver

    def one(self, selector):
        return self.driver.find_element('css selector', selector)

    def wait(self, condition):
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, LIMIT).until(lambda _: condition())

    def choose(self, path):
        self.one('#file').send_keys(str(path))
        return self.said()

    def said(self):
        """The message, once it is no longer 'looking'."""
        self.wait(lambda: self.one('#said').text not in ('', 'looking …'))
        return self.one('#said').text

    def cards(self):
        return [card for card in self.driver.find_elements('css selector', '.face') if card.is_displayed()]

    def pixels(self):
        """The canvas, uint8 [H, W, 3]."""
        data = self.driver.execute_script("return document.getElementById('canvas').toDataURL('image/png')")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.partition(',')[2]))).convert('RGB'))


@pytest.fixture(params=[PHONE, DESKTOP], ids=['phone', 'desktop'])
def page(browser, server, request):
    browser.get_log('browser')
    page = Page(browser, f'http://127.0.0.1:{server.server_address[1]}/', request.param)
    yield page
    wide = browser.execute_script('return [document.documentElement.scrollWidth, innerWidth]')
    assert wide[0] <= wide[1], 'the page can be moved sideways'
    errors = [entry['message'] for entry in browser.get_log('browser') if entry['level'] == 'SEVERE']
    assert not [message for message in errors if '/faces' not in message]


@pytest.mark.slow
def test_the_page_shows_faces_or_says_why_not(page, tmp_path):
    def file(name, data):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    assert page.choose(file('one.png', png(red_cells(3)))) == '1 face' and len(page.cards()) == 1
    assert page.pixels().shape == (320, 480, 3)
    assert page.choose(file('two.png', png(red_cells(2, 6, 10)))) == '3 faces'
    titles = [card.find_element('css selector', 'h2').text for card in page.cards()]
    assert [title[0] for title in titles] == ['1', '2', '3'] and all(title.endswith('%') for title in titles)
    shares = [float(row.text.split()[-2]) for row in page.cards()[0].find_elements('css selector', '.row')]
    assert len(shares) == 7 and shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) < 4
    bars = [bar.size['width'] for bar in page.cards()[0].find_elements('css selector', '.bar i')]
    assert bars == sorted(bars, reverse=True) and bars[0] > bars[-1]

    for name, data, message in (
        ('none.png', png(red_cells()), 'No face was found in this picture.'),
        ('text.png', b'hello', 'This is no picture that can be read; give a JPEG or PNG.'),
        (
            'heavy.png',
            bytes(inference_server.LARGEST_UPLOAD_BYTES + 2**20),
            'This file has 21.0 MB; give a picture of at most 20 MB.',
        ),
        ('vast.png', header_of(8000, 6000), 'The picture has 8000 x 6000 pixels; at most 40 megapixels are looked at.'),
    ):
        assert page.choose(file(name, data)) == message
        assert page.cards() == []
    buffer = io.BytesIO()
    Image.fromarray(red_cells(3)).save(buffer, 'TIFF')  # which the server reads and the browser does not show
    assert page.choose(file('one.tiff', buffer.getvalue())) == '1 face' and len(page.cards()) == 1


@pytest.mark.slow
def test_the_box_is_where_the_face_is(page, tmp_path, server):
    (tmp_path / 'one.png').write_bytes(png(red_cells(3)))
    page.choose(tmp_path / 'one.png')
    changed = np.abs(page.pixels().astype(int) - red_cells(3)).sum(-1) > 60
    x, y, width, height = 80, 96, 64, 96  # of tiny_yunet's face, whose cell begins at (96, 128)
    box = np.zeros_like(changed)
    cv2.rectangle(box.view(np.uint8), (x, y), (x + width, y + height), 1, 1)
    assert changed[box].mean() > 0.9
    inside = changed[y + 6 : y + height - 6, x + 6 : x + width - 6]
    assert inside.mean() < 0.02


@pytest.mark.slow
def test_the_camera_takes_a_picture(page):
    page.one('#camera').click()
    page.wait(lambda: page.one('#shot').is_displayed())
    assert page.one('#video').is_displayed() and page.one('#camera').text == 'stop the camera'
    page.one('#shot').click()
    assert 'face' in page.said()  # Chromium's made-up camera shows a green picture with a clock
    assert not page.one('#video').is_displayed() and page.one('#camera').text == 'use the camera'
