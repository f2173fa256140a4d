"""The page that shows what `predict --show` sees."""

import http.client
import io
import urllib.request

import numpy as np
import pytest
from PIL import Image

from fer_jax.inference import live_view
from tests.wait import LIMIT


def test_a_browser_gets_the_newest_picture_and_strangers_nothing(monkeypatch, capsys):
    monkeypatch.setattr(live_view, 'has_display', lambda: False)
    with live_view.open_live_view() as view:
        assert f'there is no display here: open {view.address} in a browser' in capsys.readouterr().err
        for level in (10, 200):
            view.show(np.full((48, 64, 3), level, np.uint8))
        with urllib.request.urlopen(view.address, timeout=LIMIT) as page:
            assert b'<img src="stream"' in page.read()
        with urllib.request.urlopen(f'{view.address}stream', timeout=LIMIT) as stream:
            assert stream.readline() == b'--frame\r\n' and stream.readline() == b'Content-Type: image/jpeg\r\n'
            length = int(stream.readline().split()[1])
            stream.readline()
            picture = np.asarray(Image.open(io.BytesIO(stream.read(length))))
        assert picture.shape == (48, 64, 3) and abs(picture.mean() - 200) < 2
        connection = http.client.HTTPConnection(*view.address.split('/')[2].split(':'), timeout=LIMIT)
        connection.request('GET', '/stream')
        assert connection.getresponse().status == 404
        connection.close()
    with pytest.raises(OSError):
        urllib.request.urlopen(view.address, timeout=LIMIT)


def test_a_machine_with_a_display_opens_a_browser(monkeypatch, capsys):
    monkeypatch.setenv('DISPLAY', ':0')
    opened = []
    monkeypatch.setattr(live_view.webbrowser, 'open', lambda address: opened.append(address) or True)
    with live_view.open_live_view() as view:
        assert opened == [view.address] and f'are shown on {view.address}' in capsys.readouterr().err
