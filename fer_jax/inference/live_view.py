"""A page on this machine that shows the newest annotated picture while `predict` runs."""

import contextlib
import http.server
import os
import secrets
import sys
import threading
import webbrowser
from collections.abc import Iterator

import numpy as np

BOUNDARY = 'frame'
QUALITY = 85  # of JPEG, 0 to 100
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><link rel="icon" href="data:,">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>fer_jax: live</title>
<style>body { margin: 0; background: #14171b; color: #e8eaed; font: 16px system-ui, sans-serif; text-align: center }
img { max-width: 100vw; max-height: 92vh } p { margin: .5rem }</style>
<img src="stream" alt="the newest picture with its faces">
<p>What a face shows. Ctrl-C in the terminal ends it.</p></html>
"""


class LiveView:
    """Serves the newest picture on 127.0.0.1, under an address with a secret, to any number of browsers.

    Older pictures are dropped: a browser that is slow sees fewer.
    """

    def __init__(self) -> None:
        self._jpeg, self._number, self._ended = b'', 0, False
        self._changed = threading.Condition()
        self._path = f'/{secrets.token_urlsafe(16)}/'
        view = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                view._answer(self)

            def log_message(self, format: str, *values: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name='live view', daemon=True).start()

    @property
    def address(self) -> str:
        """The address of the page."""
        return f'http://127.0.0.1:{self._server.server_port}{self._path}'

    def show(self, image: np.ndarray) -> None:
        """Replaces the picture.

        Args:
          image: uint8 RGB [H, W, 3].
        """
        import cv2

        encoded = cv2.imencode('.jpg', cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        with self._changed:
            self._jpeg, self._number = encoded.tobytes(), self._number + 1
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the streams and the server."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        kinds = {self._path: 'text/html; charset=utf-8'}
        kinds[f'{self._path}stream'] = f'multipart/x-mixed-replace; boundary={BOUNDARY}'
        if request.path not in kinds:
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header('Content-Type', kinds[request.path])
        request.send_header('Cache-Control', 'no-store')
        request.end_headers()
        with contextlib.suppress(ConnectionError):  # a browser was closed
            for part in [PAGE.encode()] if request.path == self._path else self._parts():
                request.wfile.write(part)

    def _parts(self) -> Iterator[bytes]:
        """The newest picture whenever there is a new one."""
        number = 0
        while True:
            with self._changed:
                while not self._ended and self._number == number:
                    self._changed.wait()
                if self._ended:
                    return
                jpeg, number = self._jpeg, self._number
            yield f'--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n'.encode()
            yield jpeg + b'\r\n'


@contextlib.contextmanager
def open_live_view() -> Iterator[LiveView]:
    """Yields a `LiveView`, opened in a browser where this machine has a display; else its address is printed."""
    with contextlib.closing(LiveView()) as view:
        if has_display() and webbrowser.open(view.address):
            print(f'the pictures are shown on {view.address}', file=sys.stderr)
        else:
            port = view.address.split(':')[2].split('/')[0]
            print(
                f'there is no display here: open {view.address} in a browser, from another machine after '
                f'`ssh -L {port}:127.0.0.1:{port} THIS_MACHINE`',
                file=sys.stderr,
            )
        yield view


def has_display() -> bool:
    """Returns whether a program of this process can open a window."""
    if sys.platform in ('darwin', 'win32'):
        return True
    return any(os.environ.get(name) for name in ('DISPLAY', 'WAYLAND_DISPLAY'))
