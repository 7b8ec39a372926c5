"""One HTTP exchange on the hot path: the request's headers and bounded body, and the few ways to answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from lattice.core.errors import LatticeError

_encode = msgspec.json.Encoder().encode

WRITE_SECONDS = 30.0
"""Else a caller that stops reading would keep its work's slot and hold for as long as it likes."""


class Exchange:
    """A request and its answer. Created by the boundary, which owns the request id."""

    __slots__ = ("_receive", "_send", "headers", "request_id", "response_headers", "scope", "started", "started_at")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.headers = Headers(scope=scope)
        self.request_id: str = scope["state"]["request_id"]
        self.response_headers: list[tuple[bytes, bytes]] = []
        self.started = False
        self.started_at = time.perf_counter()

    async def body(self, limit: int, seconds: float) -> bytes:
        """The whole body. Raises `body_too_large` before reading past `limit`, `request_timeout` past `seconds`."""
        declared = self.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > limit:
            raise _too_large(limit)
        message = await self._next_part(seconds)
        if not message.get("more_body"):
            return _bounded(message.get("body", b""), limit)
        parts, size = [message.get("body", b"")], len(message.get("body", b""))
        try:
            async with asyncio.timeout(seconds):
                while message.get("more_body"):
                    message = await self._next_part(seconds)
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise _too_large(limit)
        except TimeoutError:
            raise LatticeError("request_timeout") from None
        return b"".join(parts)

    def elapsed(self) -> float:
        """Seconds since the request came in."""
        return time.perf_counter() - self.started_at

    async def _next_part(self, seconds: float) -> Any:
        try:
            async with asyncio.timeout(seconds):
                message = await self._receive()
        except TimeoutError:
            raise LatticeError("request_timeout") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message

    async def disconnected(self) -> None:
        """Return once the caller has gone away. Only after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def watch(self, on_gone: Callable[[], None]) -> asyncio.Task[None]:
        """Call `on_gone` as soon as the caller disconnects; cancel the task when the answer is out."""
        task = asyncio.ensure_future(self.disconnected())
        task.add_done_callback(lambda t: None if t.cancelled() else on_gone())
        return task

    async def start(self, status: int, media_type: bytes, length: int | None = None) -> None:
        """Send the status line and headers."""
        self.started = True
        headers = [(b"content-type", media_type), *self.response_headers]
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def write(self, data: bytes, more: bool = True) -> None:
        """Send part of a stream. A caller that takes nothing for `WRITE_SECONDS` counts as gone."""
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            raise ClientGone from None

    async def respond(self, status: int, media_type: bytes, body: bytes) -> None:
        """Send a whole answer."""
        await self.start(status, media_type, len(body))
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def json(self, status: int, value: Any) -> None:
        """Send a JSON answer."""
        await self.respond(status, b"application/json", _encode(value))


class ClientGone(Exception):
    """The caller disconnected; there is nobody to answer."""


def _too_large(limit: int) -> LatticeError:
    return LatticeError("body_too_large", f"The body is larger than {limit} bytes.")


def _bounded(body: bytes, limit: int) -> bytes:
    if len(body) > limit:
        raise _too_large(limit)
    return body
