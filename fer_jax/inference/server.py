"""The HTTP server of `python -m fer_jax.serve`: one page, and one address it sends pictures to."""

import contextlib
import html
import io
import ipaddress
import json
import socket
import sys
import threading
import time
from collections.abc import Collection
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fer_jax.data.imaging.codec import FORMATS, decode
from fer_jax.data.imaging.faces import Detector
from fer_jax.errors import UserError
from fer_jax.inference import face_pipeline
from fer_jax.inference.face_pipeline import Cutting
from fer_jax.inference.media import Frame, Source
from fer_jax.inference.predictor import Predictor

LARGEST_UPLOAD_BYTES = 20 * 2**20  # bytes
LARGEST_PIXELS = 40_000_000  # pixels
MOST_PICTURES = 2  # pictures that are looked at together; more wait
MOST_CONNECTIONS = 32  # at once; a further one is closed
IDLE_SECONDS = 20.0  # seconds, for a turn and for what a client sends next
REQUEST_SECONDS = 60.0  # seconds, for all that a client sends
LOOPBACK = ('127.0.0.1', 'localhost')
UNREADABLE = 'this is no picture that can be read; give a JPEG or PNG'
PAGE = Path(__file__).with_name('serve.html')
HEADERS = {
    'Cache-Control': 'no-store',
    'Content-Security-Policy': "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}


class Refused(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(self, status: HTTPStatus, reason: str):
        super().__init__(reason)
        self.status = status


class Server(ThreadingHTTPServer):
    """Answers GET / with the page and POST /faces, a picture, with what its faces show."""

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        address: tuple[str, int],
        predictor: Predictor,
        detect: Detector,
        cutting: Cutting,
        names: Collection[str] = (),
    ):
        """Listens.

        Args:
          names: by which it is reached, beside localhost and any address.
        """
        super().__init__(address, Handler)
        self.predictor, self.detect, self.cutting = predictor, detect, cutting
        self.names = {'localhost', *(name.lower() for name in names if name)}
        self.turns = threading.BoundedSemaphore(MOST_PICTURES)
        self.connections = threading.BoundedSemaphore(MOST_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Starts the thread of a connection, unless there are `MOST_CONNECTIONS`."""
        if not self.connections.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread can be started
            self.connections.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.connections.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a client that went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def is_called(self, host: str) -> bool:
        """Whether a Host header has a name of this server, or an address.

        Somebody else's name, made to lead here, would make their page one of this server to a browser (DNS rebinding).
        """
        try:
            name = urlsplit(f'//{host}').hostname or ''
            return name in self.names or bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def look(self, data: bytes) -> dict[str, Any]:
        """The faces of an encoded picture.

        Raises:
          Refused: it is no picture, is too large, or too many others are being looked at.
        """
        check_size(data)
        if not self.turns.acquire(timeout=IDLE_SECONDS):
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, 'too many pictures at once; try again')
        try:
            image = decode(data, None, 3, 'the picture')
            frame = Frame(Source('picture', 1, 0.0), 0, 0.0, image)
            size, classify = self.predictor.image_size, self.predictor.calibrated
            ((_, told),) = face_pipeline.look([frame], self.detect, classify, size=size, cutting=self.cutting)
        except UserError:
            raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, UNREADABLE) from None
        finally:
            self.turns.release()
        found = [
            face_pipeline.record(frame, one, self.predictor.classes, number=at, abstain_below=0.0)
            for at, one in enumerate(told)
        ]
        return {'width': image.shape[1], 'height': image.shape[0], 'faces': found}


def check_size(data: bytes) -> None:
    """Looks at the header alone: what would be decoded to too many pixels is not.

    Raises:
      Refused: it has too many, or is no picture.
    """
    from PIL import Image

    size: tuple[int, ...] = ()
    try:
        size = Image.open(io.BytesIO(data), formats=FORMATS).size
        fits = size[0] * size[1] <= LARGEST_PIXELS
    except Image.DecompressionBombError:  # twice what Pillow warns of
        fits = False
    except Exception:  # a damaged header can make Pillow raise anything
        raise Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, UNREADABLE) from None
    if not fits:
        has = f'{size[0]} x {size[1]} pixels' if size else 'too many pixels'
        most = f'{LARGEST_PIXELS / 1e6:.0f} megapixels'
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f'the picture has {has}; at most {most} are looked at')


class Arriving(io.RawIOBase):
    """What a client sends; TimeoutError where it pauses for `pause` seconds, or takes longer than `REQUEST_SECONDS`."""

    def __init__(self, connection: socket.socket):
        self.pause = IDLE_SECONDS
        self._connection, self._until = connection, time.monotonic() + REQUEST_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(min(self.pause, left))
        return self._connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = 'fer_jax', ''

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.arriving = Arriving(self.connection)
        self.rfile = io.BufferedReader(self.arriving)

    def parse_request(self) -> bool:
        """Whether there is a request to answer, which means this server."""
        if not super().parse_request():
            return False
        host = self.headers.get('Host', '')
        if self.server.is_called(host):
            return True
        said = f'this server is not called {host!r}; use its address, or start it with --name'
        self._answer(HTTPStatus.MISDIRECTED_REQUEST, {'error': said})
        self._discard()
        return False

    def do_GET(self) -> None:
        if self.path.partition('?')[0] != '/':
            self._answer(HTTPStatus.NOT_FOUND, {'error': 'nothing is at this address; the page is at /'})
            return
        page = PAGE.read_text(encoding='utf-8').replace('{{largest}}', str(LARGEST_UPLOAD_BYTES))
        page = page.replace('{{classes}}', html.escape(', '.join(self.server.predictor.classes)))
        self._send(HTTPStatus.OK, page.encode(), 'text/html')

    def do_POST(self) -> None:
        try:
            self._answer(HTTPStatus.OK, self.server.look(self._body()))
        except Refused as refused:
            self._answer(refused.status, {'error': str(refused)})
            self._discard()

    def _body(self) -> bytes:
        if self.path != '/faces':
            raise Refused(HTTPStatus.NOT_FOUND, 'pictures are sent to /faces')
        origin, host = self.headers.get('Origin'), self.headers.get('Host')
        if origin is not None and origin.partition('://')[2] != host:
            raise Refused(HTTPStatus.FORBIDDEN, 'only the page of this server may send pictures')
        try:
            length = int(self.headers.get('Content-Length', ''))
        except ValueError:
            raise Refused(HTTPStatus.LENGTH_REQUIRED, 'the request does not say how long it is') from None
        if not 0 < length <= LARGEST_UPLOAD_BYTES:
            most = f'{LARGEST_UPLOAD_BYTES / 2**20:.0f} MB'
            said = f'the file has {length / 2**20:.1f} MB; give a picture of at most {most}'
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, said)
        try:
            data = self.rfile.read(length)
        except TimeoutError:
            raise Refused(HTTPStatus.REQUEST_TIMEOUT, 'the picture did not arrive in time') from None
        if len(data) < length:
            raise Refused(HTTPStatus.BAD_REQUEST, 'the picture did not arrive whole')
        return data

    def _discard(self) -> None:
        """Reads on a little: a browser whose upload is cut off shows no answer."""
        self.arriving.pause = 1.0
        with contextlib.suppress(OSError):
            while self.rfile.read1(2**16):
                pass

    def _answer(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        self._send(status, json.dumps(content).encode(), 'application/json')

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.connection.settimeout(IDLE_SECONDS)
        self.send_response(status)
        self.send_header('Content-Type', f'{kind}; charset=utf-8')
        self.send_header('Content-Length', str(len(body)))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing is kept, nor who asked."""
