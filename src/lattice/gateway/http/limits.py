"""Bounds for routes that read their body themselves: FastAPI would take any number of bytes, from anybody."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lattice.gateway.http.exchange import Exchange

MAX_CONTROL_BODY = 1024 * 1024
"""Far more than any control-plane request needs."""


class BoundedBodies:
    """ASGI wrapper that reads each body whole, within bounds of size and time, and then hands it on."""

    def __init__(
        self, app: ASGIApp, limit: int, seconds: float, exempt: Callable[[str, str], bool] = lambda method, path: False
    ) -> None:
        self._app = app
        self._exempt = exempt  # by method and path: routes that stream large bodies and bound them themselves
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, then run the inner application. Raises `body_too_large` or `request_timeout`."""
        if scope["type"] != "http" or self._exempt(scope["method"], scope["path"]):
            await self._app(scope, receive, send)
            return
        body: bytes | None = await Exchange(scope, receive, send).body(self._limit, self._seconds)

        async def replay() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            whole, body = body, None
            return {"type": "http.request", "body": whole, "more_body": False}

        await self._app(scope, replay, send)
