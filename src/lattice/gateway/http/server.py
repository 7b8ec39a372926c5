"""uvicorn, with the guards it lacks: a connection whose headers are slow or endless is answered and closed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from lattice.gateway.settings import GatewaySettings

HEADER_SECONDS = 10.0

MAX_HEAD_BYTES = 128 * 1024

_SLOW = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: 27\r\n\r\n" + b'{"error":"request_timeout"}'
)
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\nconnection: close\r\n"
    b"content-length: 26\r\n\r\n" + b'{"error":"body_too_large"}'
)


class GuardedProtocol(HttpToolsProtocol):
    """Closes connections whose request line and headers take longer than `header_seconds`, or have no end."""

    header_seconds = HEADER_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock for the first request."""
        super().connection_made(transport)
        self._guard: asyncio.TimerHandle | None = None
        self._arm()

    def data_received(self, data: bytes) -> None:
        """A kept-alive connection starts a new request: start the clock again."""
        if self._guard is None and (self.cycle is None or self.cycle.response_complete):
            self._arm()
        super().data_received(data)
        if self._guard is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """In time."""
        self._disarm()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._disarm()
        super().connection_lost(exc)

    def _arm(self) -> None:
        self._head_bytes = 0
        self._guard = self.loop.call_later(self.header_seconds, self._refuse, _SLOW)

    def _disarm(self) -> None:
        if self._guard is not None:
            self._guard.cancel()
            self._guard = None

    def _refuse(self, answer: bytes) -> None:
        self._disarm()
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process that runs it drains first."""

    def install_signal_handlers(self) -> None:
        """Left to `lattice.gateway.serve`."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Left to `lattice.gateway.serve`."""
        yield


def make_server(app: ASGIApp, settings: GatewaySettings) -> Server:
    """A server for `app`, logging through structlog only."""
    protocol = type("Protocol", (GuardedProtocol,), {"header_seconds": settings.header_seconds})
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=protocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=5,
        backlog=4096,
    )
    return Server(config)
