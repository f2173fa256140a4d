"""The web service of `fer-jax serve`: a page, a JSON API and its documentation."""

import html
import socket
from collections.abc import Collection
from http import HTTPStatus
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from fer_jax.inference import openapi, uploads
from fer_jax.inference.face_service import FaceService, Refused
from fer_jax.inference.http_guard import Guard, LimitedProtocol, Names, refusal

LOOPBACK = ('127.0.0.1', '::1', 'localhost')
KEEP_ALIVE_SECONDS = 5
SHUTDOWN_SECONDS = 5  # for requests that are being answered
PAGE = Path(__file__).with_name('serve.html')


class Server(uvicorn.Server):
    """Serves a `FaceService` over HTTP: GET / is the page, POST /faces takes pictures, see `openapi.describe_api`."""

    def __init__(
        self, address: tuple[str, int], service: FaceService, *, names: Collection[str] = (), root_path: str = ''
    ):
        """Opens the socket and creates the application.

        Args:
          address: host name or address, IPv4 or IPv6, and port; 0 takes any free port.
          service: finds and classifies the faces.
          names: host names by which the server is reached, beside localhost and IP addresses; see `http_guard.Names`.
          root_path: path prefix under which a proxy serves it, such as '/faces'; '' for none.

        Raises:
          OSError, OverflowError: the address cannot be listened on.
        """
        self.socket = listen(*address)
        super().__init__(
            uvicorn.Config(
                create_app(service, Names(address[0], names), root_path),
                http=LimitedProtocol,
                ws='none',
                loop='asyncio',
                lifespan='off',
                log_config=None,
                log_level='error',
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )

    @property
    def address(self) -> tuple[str, int]:
        """The address and the port that it listens on."""
        return self.socket.getsockname()[:2]

    def serve_forever(self) -> None:
        """Answers requests until a signal arrives or `should_exit` is set."""
        self.run(sockets=[self.socket])


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket.

    IPv4 is used for a name with addresses of both versions; the address :: also accepts IPv4 where the system can.

    Args:
      host: host name or address.
      port: port; 0 takes any free one.
    """
    addresses = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, (address, _, *scope) = min(addresses, key=lambda each: each[0] != socket.AF_INET)
    dualstack = address == '::' and socket.has_dualstack_ipv6()
    return socket.create_server((address, port, *scope), family=family, dualstack_ipv6=dualstack)


def create_app(service: FaceService, names: Names, root_path: str = '') -> Guard:
    """Creates the ASGI application of the web service.

    Args:
      service: finds and classifies the faces.
      names: host names that are allowed.
      root_path: path prefix under which a proxy serves it; '' for none.
    """
    predictor = service.predictor
    text = PAGE.read_text(encoding='utf-8').replace('{{largest}}', str(uploads.LARGEST_UPLOAD_BYTES))
    text = text.replace('{{prefix}}', f'{root_path}/' if root_path else '')
    text = text.replace('{{classes}}', html.escape(', '.join(predictor.classes)))
    document = openapi.describe_api(predictor.classes, root_path)

    async def page(request: Request) -> Response:
        return HTMLResponse(text)

    async def health(request: Request) -> Response:
        return JSONResponse({'status': 'ok'})

    async def schema(request: Request) -> Response:
        return JSONResponse(document)

    async def documentation(request: Request) -> Response:
        return HTMLResponse(openapi.render_page(document))

    async def faces(request: Request) -> Response:
        pictures, several = await uploads.read_pictures(request)
        answers = await service.analyze(pictures)
        failed = [answer for answer in answers if isinstance(answer, Refused)]
        if not several:
            return refused(failed[0]) if failed else JSONResponse(answers[0])
        content = [
            {'file': picture.name, 'error': str(answer), 'status': answer.status.value}
            if isinstance(answer, Refused)
            else answer
            for picture, answer in zip(pictures, answers, strict=True)
        ]
        if len(failed) == len(answers):
            return JSONResponse({'error': str(failed[0]), 'pictures': content}, failed[0].status)
        return JSONResponse({'pictures': content})

    routes = [
        Route('/', page),
        Route('/faces', faces, methods=['POST']),
        Route('/health', health),
        Route('/openapi.json', schema),
        Route('/docs', documentation),
    ]
    handlers: Any = {
        Refused: lambda request, error: refused(error),
        ClientDisconnect: lambda request, error: Response(),
        HTTPException: http_error,
        Exception: lambda request, error: refusal(500, 'the server failed; its log says why'),
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), names, root_path)


def refused(error: Refused) -> Response:
    """Returns the response to a refused request; after a request timeout it closes the connection."""
    close = {'Connection': 'close'} if error.status == HTTPStatus.REQUEST_TIMEOUT else {}
    return refusal(error.status, str(error), **close)


def http_error(request: Request, error: HTTPException) -> Response:
    """Returns the response to an HTTP error, such as an unknown address or a method that is not allowed."""
    reasons = {
        404: 'nothing is at this address; the page is at /, pictures are sent to /faces',
        405: 'this method does not work here; pictures are sent to /faces by POST',
    }
    return refusal(error.status_code, reasons.get(error.status_code, error.detail), **(error.headers or {}))
