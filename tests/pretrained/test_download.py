"""Downloads over real HTTP on loopback, from a server that breaks off, refuses and lies."""

import functools
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from fer_jax.errors import UserError
from fer_jax.pretrained import download, sources
from tests.parity import torch_model

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


def fetch(server, path, name='file', sha256=DIGEST[:8]):
    download.fetch(f'{server.url}/{name}', path, sha256=sha256, pause=0.01)


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
    server.cuts = [1000] * download.TRIES
    with pytest.raises(UserError, match='cannot be downloaded .*goes on where this stopped'):
        fetch(server, tmp_path / 'weights.pth')
    assert [path.name for path in tmp_path.iterdir()] == ['weights.pth.part']
    fetch(server, tmp_path / 'weights.pth')
    assert (tmp_path / 'weights.pth').read_bytes() == CONTENT
    assert server.asked[-1] == f'bytes={1000 * download.TRIES}-'


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
    with pytest.raises(UserError, match='expected 00000000...; it was thrown away'):
        fetch(server, tmp_path / 'weights.pth', sha256='0' * 8)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_had_is_named(server, tmp_path, monkeypatch):
    path = tmp_path / 'weights.pth'
    with pytest.raises(UserError, match='/none answers 404 Not Found; download it by hand to .*weights.pth'):
        fetch(server, path, name='none')
    with pytest.raises(UserError, match='cannot be downloaded'):
        download.fetch('http://127.0.0.1:9/file', path, sha256='0', pause=0.01)
    with pytest.raises(UserError, match='cannot be downloaded'):
        download.fetch('http://name.invalid/file', path, sha256='0', pause=0.01)
    monkeypatch.setenv(download.OFFLINE, '1')
    with pytest.raises(UserError, match='is not downloaded because FER_JAX_OFFLINE is set; put the file at'):
        fetch(server, path)


def test_imagenet_weights_are_downloaded_converted_and_kept(tmp_path, monkeypatch, capsys):
    """torchvision's file of a randomised ResNet-18, over HTTP into an empty cache; the second time nothing is asked."""
    reference = torch_model('resnet18')
    torch = pytest.importorskip('torch')
    torch.save(reference.state_dict(), tmp_path / 'file.pth')
    digits = hashlib.sha256((tmp_path / 'file.pth').read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(sources.TORCHVISION_FILES, 'resnet18', digits)
    (tmp_path / 'file.pth').rename(tmp_path / f'resnet18-{digits}.pth')
    monkeypatch.delenv(download.OFFLINE)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{running.server_port}/'
        first = sources.resolve('imagenet', 'resnet18', cache=tmp_path / 'cache', url=url)
        running.shutdown()
    assert 'non-commercial' in capsys.readouterr().out and first.metadata['source'].startswith(url)
    again = sources.resolve('imagenet', 'resnet18', cache=tmp_path / 'cache', url=url)
    assert [path.name for path in (tmp_path / 'cache' / 'weights').iterdir()] == ['resnet18-imagenet.safetensors']
    for path, leaf in first.params.items():
        np.testing.assert_array_equal(leaf, again.params[path])
    kernel = reference.state_dict()['layer1.0.conv1.weight'].numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(again.params['layer1.0.conv1.kernel'], kernel)
