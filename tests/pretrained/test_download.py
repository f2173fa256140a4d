"""Downloads over real HTTP on loopback, from a server that breaks off, refuses and lies."""

import functools
import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from fer_jax import models
from fer_jax.errors import UserError
from fer_jax.models import mobilenet, resnet_small
from fer_jax.pretrained import download, locate, published_weights
from fer_jax.pretrained.name_tables import keras_names, torch_names
from fer_jax.pretrained.published_weights import PUBLISHED, Published
from tests.torch_reference import torchvision_model

CONTENT = np.random.default_rng(0).bytes(3 << 20)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    """Serves CONTENT at /file; `cuts` are lengths after which connections break, `asked` the ranges asked for."""
    monkeypatch.delenv(download.OFFLINE, raising=False)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            given = self.headers.get('Range')
            state.asked.append(given)
            if self.path != '/file':
                return self.send_error(404)
            first = int(given.removeprefix('bytes=').rstrip('-')) if given and state.ranges else 0
            if first >= len(CONTENT):
                return self.send_error(416)
            data = CONTENT[first:]
            self.send_response(206 if given and state.ranges else 200)
            self.send_header('Content-Length', str(len(data)))
            self.end_headers()
            self.wfile.write(data[: state.cuts.pop(0)] if state.cuts else data)

        def log_message(self, *arguments):
            pass

    class State:
        asked, cuts, ranges = [], [], True

    state = State()
    running = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    state.url = f'http://127.0.0.1:{running.server_port}'
    yield state
    running.shutdown()
    running.server_close()
    thread.join()


def fetch(server, path, name='file', digest=f'sha256:{DIGEST[:8]}'):
    download.fetch(f'{server.url}/{name}', path, digest=digest, pause=0.01)


def test_a_file_arrives_whole_and_once(server, tmp_path):
    path = tmp_path / 'new' / 'weights.pth'
    fetch(server, path)
    fetch(server, path)
    assert path.read_bytes() == CONTENT and server.asked == [None]
    assert list(path.parent.iterdir()) == [path]


def test_a_broken_download_goes_on(server, tmp_path):
    server.cuts = [1 << 20, 5, 1 << 19]
    fetch(server, tmp_path / 'weights.pth')
    assert (tmp_path / 'weights.pth').read_bytes() == CONTENT
    assert server.asked == [None, *(f'bytes={at}-' for at in (1 << 20, (1 << 20) + 5, (1 << 20) + 5 + (1 << 19)))]


def test_a_later_call_goes_on_too(server, tmp_path):
    server.cuts = [1000] * download.MOST_TRIES
    with pytest.raises(UserError, match='cannot be downloaded .*goes on where this stopped'):
        fetch(server, tmp_path / 'weights.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['weights.pth.part']
    fetch(server, tmp_path / 'weights.pth')
    assert (tmp_path / 'weights.pth').read_bytes() == CONTENT
    assert server.asked[-1] == f'bytes={1000 * download.MOST_TRIES}-'


def test_a_server_without_ranges_starts_anew(server, tmp_path):
    server.cuts, server.ranges = [1 << 20], False
    fetch(server, tmp_path / 'weights.pth')
    assert (tmp_path / 'weights.pth').read_bytes() == CONTENT


def test_a_whole_part_is_taken(server, tmp_path):
    (tmp_path / 'weights.pth.part').write_bytes(CONTENT)
    fetch(server, tmp_path / 'weights.pth')
    assert (tmp_path / 'weights.pth').read_bytes() == CONTENT


@pytest.mark.parametrize('started', [False, True])
def test_another_file_is_thrown_away(server, tmp_path, started):
    if started:
        (tmp_path / 'weights.pth.part').write_bytes(b'x' * 1000)
    with pytest.raises(UserError, match='expected sha256:00000000...; it was thrown away'):
        fetch(server, tmp_path / 'weights.pth', digest='sha256:00000000')
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_had_is_named(server, tmp_path, monkeypatch):
    path = tmp_path / 'weights.pth'
    with pytest.raises(UserError, match='/none answers 404 Not Found; download it by hand to .*weights.pth'):
        fetch(server, path, name='none')
    with pytest.raises(UserError, match='cannot be downloaded'):
        download.fetch('http://127.0.0.1:9/file', path, digest='', pause=0.01)
    with pytest.raises(UserError, match='cannot be downloaded'):
        download.fetch('http://name.invalid/file', path, digest='', pause=0.01)
    monkeypatch.setenv(download.OFFLINE, '1')
    with pytest.raises(UserError, match='is not downloaded because FER_JAX_OFFLINE is set; put the file at'):
        fetch(server, path)


def test_md5_is_checked_where_that_is_published(server, tmp_path):
    fetch(server, tmp_path / 'right.h5', digest=f'md5:{hashlib.md5(CONTENT).hexdigest()}')
    with pytest.raises(UserError, match='gave a file of md5:.*expected md5:0000...; it was thrown away'):
        fetch(server, tmp_path / 'wrong.h5', digest='md5:0000')
    fetch(server, tmp_path / 'unknown.h5', digest='')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['right.h5', 'unknown.h5']


def test_a_file_put_there_by_hand_is_taken_if_it_is_the_one(server, tmp_path, monkeypatch):
    monkeypatch.setenv(download.OFFLINE, '1')
    (tmp_path / 'weights.pth').write_bytes(CONTENT)
    fetch(server, tmp_path / 'weights.pth')
    (tmp_path / 'other.pth').write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match='other.pth is sha256:.*, not the file of .*; move it away, or put that one'):
        fetch(server, tmp_path / 'other.pth')
    assert server.asked == [] and (tmp_path / 'other.pth').exists()


def test_imagenet_weights_are_downloaded_converted_and_kept(tmp_path, monkeypatch, capsys):
    """torchvision's file of a randomised ResNet-18, over HTTP into an empty cache; the second time nothing is asked."""
    reference = torchvision_model('resnet18')
    torch = pytest.importorskip('torch')
    torch.save(reference.state_dict(), tmp_path / 'file.pth')
    digits = hashlib.sha256((tmp_path / 'file.pth').read_bytes()).hexdigest()[:8]
    (tmp_path / 'file.pth').rename(tmp_path / f'resnet18-{digits}.pth')
    monkeypatch.delenv(download.OFFLINE)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{running.server_port}/'
        place = f'{url}resnet18-{digits}.pth'
        known = Published(
            'resnet18', 'imagenet', place, f'sha256:{digits}', 'BSD-3-Clause', published_weights.IMAGENET_TERMS
        )
        first = locate.resolve('imagenet', 'resnet18', cache=tmp_path / 'cache', published=[known])
        running.shutdown()
    assert 'non-commercial' in capsys.readouterr().out and first.metadata['source'].startswith(url)
    again = locate.resolve('imagenet', 'resnet18', cache=tmp_path / 'cache', published=[known])
    assert [path.name for path in (tmp_path / 'cache' / 'weights').iterdir()] == ['resnet18-imagenet.safetensors']
    for path, leaf in first.params.items():
        np.testing.assert_array_equal(leaf, again.params[path])
    kernel = reference.state_dict()['layer1.0.conv1.weight'].numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(again.params['layer1.0.conv1.kernel'], kernel)


def test_all_that_is_published_can_be_converted_and_stands_on_its_page():
    page = (Path(__file__).parents[2] / 'docs' / 'reference' / 'weights.md').read_text()
    assert len({(known.model, known.weights) for known in PUBLISHED}) == len(PUBLISHED)
    for known in PUBLISHED:
        assert known.model in {*torch_names.TABLES, *keras_names.TABLES, mobilenet.FOLDED, 'dlib_resnet'}, known
        assert re.fullmatch('|sha256:[0-9a-f]{8}|md5:[0-9a-f]{32}', known.digest), known
        assert known.licence and known.terms and known.place.startswith('https://') != bool(known.package), known
        assert f'| `{known.model}` | `{known.weights}` |' in page, known
    assert {known.model for known in PUBLISHED} == set(models.NAMES) - set(resnet_small.DEPTHS)  # this project's own


def test_what_is_not_published_is_said(tmp_path):
    with pytest.raises(UserError, match="no weights of resnet18 are here .*published are 'imagenet'"):
        locate.resolve('vggface2', 'resnet18', cache=tmp_path)
    with pytest.raises(UserError, match='vgg_face2, where they are had by hand .NON-COMMERCIAL.*--weights vggface2'):
        locate.resolve('vggface2', 'senet50_caffe', cache=tmp_path)
    with pytest.raises(UserError, match='imagnet.* is not a file'):
        locate.resolve('imagnet', 'resnet18', cache=tmp_path)
