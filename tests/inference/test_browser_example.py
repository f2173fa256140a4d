"""The example of a page that needs no server, in Chromium, against the same networks in Python."""

import functools
import http.server
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from fer_jax.data.imaging import faces
from fer_jax.exporters import exported_function
from fer_jax.inference.predictor import Predictor
from tests.inference.pictures import png, red_cells
from tests.inference.test_serve_page import DESKTOP, Page, browser  # noqa: F401

REPOSITORY = Path(__file__).parents[2]


class Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = {'.html': 'text/html', '.mjs': 'text/javascript', '.wasm': 'application/wasm', '': 'text/plain'}

    def log_message(self, *values):
        pass


@pytest.mark.slow
def test_a_page_finds_and_classifies_as_python_does(browser, untrained, yunet, tmp_path):  # noqa: F811
    modules = Path(os.environ.get('FER_JAX_NODE_MODULES', REPOSITORY / 'node_modules'))
    if not (modules / 'onnxruntime-web').is_dir():
        pytest.skip(f'no onnxruntime-web in {modules}: npm install --no-package-lock onnxruntime-web')
    site = Path(shutil.copytree(REPOSITORY / 'examples' / 'browser', tmp_path / 'site'))
    (site / 'ort').symlink_to((modules / 'onnxruntime-web' / 'dist').resolve())
    shutil.copy(yunet, site / 'yunet.onnx')
    (site / 'faces.onnx').write_bytes(exported_function.Exported(untrained).onnx({}))
    predictor, margin = Predictor(untrained), 0.2
    description = {'classes': predictor.classes, 'side': predictor.image_size, 'margin': margin}
    (site / 'network.json').write_text(json.dumps(description))
    picture = np.pad(red_cells(2, 6, 10), ((0, 0), (0, 160), (0, 0))).repeat(2, 0).repeat(2, 1)  # twice YuNet's input
    picture[..., 1] = np.random.default_rng(0).integers(0, 200, picture.shape[:2])
    (tmp_path / 'picture.png').write_bytes(png(picture))
    found = faces.detector(yunet)(picture)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = Page(browser, f'http://127.0.0.1:{server.server_port}/', DESKTOP)
        page.wait(lambda: page.one('#status').text == 'ready')
        page.one('#file').send_keys(str(tmp_path / 'picture.png'))
        page.wait(lambda: page.one('#status').text.endswith(('face', 'faces')))
        items = browser.find_elements('css selector', '#faces li')
        boxes, rows = (
            np.array([json.loads(item.get_attribute(f'data-{name}')) for item in items])
            for name in ('box', 'probabilities')
        )
        server.shutdown()
    assert len(found) == 3 == len(items)
    order, own = np.argsort(boxes[:, 0]), sorted(found, key=lambda face: face.box[0])
    np.testing.assert_allclose(boxes[order], [face.box for face in own], atol=2)
    crops = np.stack([faces.crop(picture, face.box, margin, predictor.image_size) for face in own])
    np.testing.assert_allclose(rows[order], predictor.calibrated(crops), atol=0.02)
