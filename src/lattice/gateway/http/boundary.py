"""The outermost layer: gives each request its id, and turns whatever goes wrong into a catalogued answer."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec
import structlog
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lattice.core.clock import Clock
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.http.exchange import ClientGone
from lattice.gateway.metrics import Metrics

_log = structlog.get_logger("lattice.gateway.http")
_encode = msgspec.json.Encoder().encode

_OPENAI_PATHS = ("/v1/chat/", "/v1/embeddings", "/v1/models")
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


class Boundary:
    """ASGI wrapper around every route."""

    def __init__(self, app: ASGIApp, clock: Clock, metrics: Metrics) -> None:
        self._app = app
        self._clock = clock
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the inner application; log and count the outcome."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_id(Prefix.REQUEST, self._clock.now_ms())
        scope.setdefault("state", {})["request_id"] = request_id
        id_header = (b"x-request-id", request_id.encode())
        status = 0
        begun = time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), id_header]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientGone:
            status = status or 499
        except Exception as error:
            failure = as_lattice_error(error)
            if failure.code == "internal":
                # Only the type: the text of a foreign exception may quote the request.
                _log.error("internal_error", request_id=request_id, exception=_where(error))
            if not status:
                failure.request_id = request_id
                await send_error(send_with_id, failure, scope["path"], kept_headers(error))
        finally:
            self._metrics.request(scope["method"], scope["path"], status, time.perf_counter() - begun)
            _log.debug("request", request_id=request_id, method=scope["method"], route=_route(scope), status=status)


def as_lattice_error(error: BaseException) -> LatticeError:
    """The catalogued form of any exception; what we did not foresee is `internal` and says nothing of its cause."""
    if isinstance(error, LatticeError):
        return error
    if isinstance(error, HTTPException):
        return LatticeError(_HTTP_CODES.get(error.status_code, "invalid_request"))
    return LatticeError("internal")


def error_headers(error: LatticeError) -> list[tuple[bytes, bytes]]:
    """`x-should-retry` for OpenAI's SDKs, which otherwise retry 408, 409, 429 and 5xx; `Retry-After` where known."""
    headers = [(b"x-should-retry", b"true" if error.spec.retry else b"false")]
    if error.retry_after_ms is not None:
        headers.append((b"retry-after", b"%d" % max(1, -(-error.retry_after_ms // 1000))))
    return headers


def kept_headers(error: BaseException) -> list[tuple[bytes, bytes]]:
    """`Allow`, which a 405 carries beside its body."""
    headers = error.headers if isinstance(error, HTTPException) else None
    return [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]


def error_body(error: LatticeError, path: str) -> dict[str, Any]:
    """The error in the shape that the route's clients read."""
    return error.openai_body() if path.startswith(_OPENAI_PATHS) else error.body()


async def send_error(
    send: Send, error: LatticeError, path: str, more_headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answer with an error. The connection closes where the request may not have been read to its end."""
    body = _encode(error_body(error, path))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *error_headers(error),
        *more_headers,
    ]
    if error.status in (408, 413):
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _route(scope: Scope) -> str:
    """The route's own pattern: what a caller writes into a path may be a secret or a prompt, and stays out of logs."""
    route = scope.get("route")
    if route is not None:
        return str(route.path)
    if "hot_route" in scope:
        return str(scope["hot_route"])
    return str(scope["path"]) if "endpoint" in scope else "unmatched"


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
    return f"{type(error).__name__}{place}"
