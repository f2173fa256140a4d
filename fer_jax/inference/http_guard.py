"""Guards the web service: limits of connections, names of the server, origins of requests, headers of answers."""

import asyncio
import ipaddress
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from fer_jax.inference import uploads

MOST_CONNECTIONS = 32  # at the same time; a further one is closed
DEFAULT_PORTS = {'http': 80, 'https': 443}
HEADERS = {
    'Cache-Control': 'no-store',
    'Content-Security-Policy': "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src blob: data:; media-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
}


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 with limits on the connections, the time to send a request and the time to receive an answer."""

    _deadline: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._deadline, self._unread):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        self._unread = self.loop.call_later(uploads.IDLE_SECONDS, self.transport.abort)
        super().pause_writing()

    def resume_writing(self) -> None:
        if self._unread:
            self._unread.cancel()
        super().resume_writing()

    def on_response_complete(self) -> None:
        self._wait()
        super().on_response_complete()

    def _wait(self) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._deadline = self.loop.call_later(uploads.REQUEST_SECONDS, self._expire)

    def _expire(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()


class Names:
    """The host names by which a server may be reached; localhost and IP addresses are always allowed."""

    def __init__(self, host: str, names: Collection[str]):
        """Stores the names.

        Args:
          host: host name or address that the server listens on.
          names: host names of proxies, with a port if it is not 80 or 443.
        """
        self._authorities = {_authority(name) for name in names}
        self._hosts = {'localhost', host.lower(), *(name for name, _ in self._authorities)}

    def has_host(self, host: str) -> bool:
        """Returns whether a Host header has one of the names or an IP address.

        Other names are not allowed because of DNS rebinding: a browser would treat a page of a foreign name that
        resolves to this server as a page of the server.
        """
        try:
            name, _ = _authority(host)
            return name in self._hosts or bool(ipaddress.ip_address(name))
        except ValueError:
            return False

    def has_origin(self, origin: str, host: str) -> bool:
        """Returns whether an Origin header matches the Host header or one of the names."""
        scheme, _, authority = origin.partition('://')
        default = DEFAULT_PORTS.get(scheme)
        try:
            (name, port), (own_name, own_port) = _authority(authority), _authority(host)
        except ValueError:
            return False
        if default is None or not name:
            return False
        port = port or default
        return (
            (name, port) == (own_name, own_port or default)
            or (name, port) in self._authorities
            or (port == default and (name, None) in self._authorities)
        )


def _authority(text: str) -> tuple[str, int | None]:
    parts = urlsplit(f'//{text}')
    return parts.hostname or '', parts.port


class Guard:
    """ASGI middleware that refuses foreign host names and origins, removes a proxy's path prefix and adds headers."""

    def __init__(self, app: ASGIApp, names: Names, root_path: str):
        self.app, self.names, self.root_path = app, names, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope['path']
        if self.root_path and (path + '/').startswith(self.root_path + '/'):  # a proxy may leave it or take it off
            path = path[len(self.root_path) :] or '/'
        scope = {**scope, 'path': path, 'raw_path': path.encode()}

        async def send_with_headers(message: Message) -> None:
            if message['type'] == 'http.response.start':
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        app = self._refusal(scope['method'], path, Headers(scope=scope)) or self.app
        await app(scope, receive, send_with_headers)

    def _refusal(self, method: str, path: str, headers: Headers) -> JSONResponse | None:
        host, origin = headers.get('Host', ''), headers.get('Origin')
        if path != '/health' and not self.names.has_host(host):
            reason = f'this server is not called {host!r}; use its address, or start it with --name'
            return refusal(421, reason)
        if method == 'POST' and origin is not None and not self.names.has_origin(origin, host):
            return refusal(403, 'only the page of this server may send pictures')
        return None


def refusal(status: int, reason: str, **headers: Any) -> JSONResponse:
    """Returns the JSON response {'error': reason}.

    Args:
      status: HTTP status.
      reason: text of the error.
      headers: further headers of the response.
    """
    return JSONResponse({'error': reason}, status, headers)
