"""The page of the web service, driven in Chromium."""

import base64
import io
import shutil
import warnings

import cv2
import numpy as np
import pytest
from PIL import Image

from fer_jax.data.imaging.faces import Face
from fer_jax.inference import uploads
from tests.inference.pictures import header_of, png, red_cells
from tests.wait import LIMIT

PHONE, DESKTOP = (390, 844), (1280, 900)


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
    page = Page(browser, f'http://127.0.0.1:{server.address[1]}/proxied/', request.param)
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
            bytes(uploads.LARGEST_UPLOAD_BYTES + 2**20),
            'This file has 21.0 MB; give a picture of at most 20 MB.',
        ),
        ('vast.png', header_of(8000, 6000), 'The picture is too large: 8000 x 6000 pixels are more than 40,000,000.'),
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


@pytest.mark.slow
def test_faces_are_numbered_from_left_to_right(page, tmp_path, server, monkeypatch):
    detect = server.service.detect
    monkeypatch.setattr(server.service, 'detect', lambda image: sorted(detect(image), key=lambda face: -face.box[0]))
    (tmp_path / 'two.png').write_bytes(png(red_cells(2, 8)))
    page.choose(tmp_path / 'two.png')
    for left, colour in ((48, (200, 60, 80)), (240, (31, 111, 180))):  # the colours of the first and the second face
        assert np.abs(page.pixels()[140, left].astype(int) - colour).max() < 40


@pytest.mark.slow
def test_labels_of_near_faces_do_not_cover_each_other(page, tmp_path, server, monkeypatch):
    near = [Face((left, 96.0, 30.0, 96.0), 0.9, None) for left in (80.0, 116.0)]
    monkeypatch.setattr(server.service, 'detect', lambda image: near)
    (tmp_path / 'near.png').write_bytes(png(red_cells()))
    page.choose(tmp_path / 'near.png')
    colours = np.array([(200, 60, 80), (31, 111, 180)])
    first, second = ((np.abs(page.pixels().astype(int) - colour).max(-1) < 4).sum() for colour in colours)
    assert abs(first - second) < 0.1 * first  # boxes and labels of the same sizes


@pytest.mark.slow
def test_the_camera_is_looked_at_live(page, monkeypatch, server):
    """Each picture is taken when the answer of the last has come: there is never more than one on its way."""
    waiting, most, count = 0, 0, 0
    analyze = server.service.analyze

    async def watched(pictures):
        nonlocal waiting, most, count
        waiting, count = waiting + 1, count + 1
        most = max(most, waiting)
        try:
            return await analyze(pictures)
        finally:
            waiting -= 1

    monkeypatch.setattr(server.service, 'analyze', watched)
    monkeypatch.setattr(server.service, 'detect', lambda image: [Face((40.0, 40.0, 80.0, 80.0), 0.9, None)])
    page.one('#camera').click()
    page.wait(lambda: page.one('#live').is_displayed())
    page.one('#live').click()
    page.wait(lambda: count > 3 and page.one('#said').text.startswith('1 face, '))
    assert most == 1 and len(page.cards()) == 1 and page.pixels().any()
    assert page.one('#live').text == 'pause' and page.one('#said').text.endswith(' pictures a second')
    page.one('#camera').click()
    assert not page.one('#live').is_displayed() and page.one('#camera').text == 'use the camera'
