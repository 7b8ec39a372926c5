"""The daemon's endpoint on loopback: OpenAI's routes straight to the engine, and a status for `lattice-ctl`.

It asks for no credential on /v1, so it must not be reachable from a web page: the Host header has to be a loopback name
(DNS rebinding), an Origin has to be loopback too, and bodies have to be declared as JSON (no "simple" form posts).
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lattice.core.chat import parse_object, parse_shape
from lattice.core.errors import LatticeError
from lattice.runtime.board import ModelBoard
from lattice.runtime.engines.base import Engine, EngineReply, EventStream
from lattice.runtime.engines.openai import MAX_BODY
from lattice.runtime.replies import error_payload
from lattice.runtime.status import DaemonStatus

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

Handler = Callable[[Request], Awaitable[Response]]


class LocalApi:
    """The routes. `runtime` is asked for at each request, because pairing can come while the daemon runs."""

    def __init__(
        self,
        *,
        engine: Engine,
        board: ModelBoard,
        status: Callable[[], DaemonStatus],
        runtime: Callable[[], str | None],
        token: str,
    ) -> None:
        self._engine = engine
        self._board = board
        self._status = status
        self._runtime = runtime
        self._token = token

    def app(self) -> ASGIApp:
        """The ASGI application, guarded."""
        routes = [
            Route("/healthz", self.health),
            Route("/status", _catalogued(self.status)),
            Route("/v1/models", _catalogued(self.models)),
            Route("/v1/chat/completions", _catalogued(self.chat), methods=["POST"]),
            Route("/v1/embeddings", _catalogued(self.embeddings), methods=["POST"]),
        ]
        return LoopbackGuard(Starlette(routes=routes, exception_handlers={HTTPException: _http_error}))

    async def health(self, _request: Request) -> Response:
        """Whether the daemon runs; says nothing of engine or gateway."""
        return _json(200, {"status": "ok"})

    async def status(self, request: Request) -> Response:
        """The whole status, for whoever can read the token file."""
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            raise LatticeError("invalid_credential", "The local status needs the token in the state directory.")
        return _json(200, self._status())

    async def models(self, _request: Request) -> Response:
        """The engine's models in OpenAI's shape."""
        if not self._board.offers and self._board.problem:
            raise self._board.problem
        data = [{"id": o.id, "object": "model", "created": 0, "owned_by": "local"} for o in self._board.offers]
        return _json(200, {"object": "list", "data": data})

    async def chat(self, request: Request) -> Response:
        """A chat completion, streamed or not."""
        data = await _body(request)
        shape = parse_shape(data)
        body = parse_object(data)
        body["model"] = self._board.resolve(shape.model, "chat", self._runtime()).id
        return _answer(await _while_connected(request, self._engine.chat(body, stream=bool(shape.stream))))

    async def embeddings(self, request: Request) -> Response:
        """Embeddings."""
        data = await _body(request)
        shape = parse_shape(data)
        body = parse_object(data)
        body["model"] = self._board.resolve(shape.model, "embeddings", self._runtime()).id
        return _answer(await _while_connected(request, self._engine.embeddings(body)))


class LoopbackGuard:
    """Lets in what a program on this machine sends, and not what a web page makes a browser send."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Judge the Host and Origin headers, then pass on."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            origin = headers.get(b"origin")
            local = _is_loopback("//" + headers.get(b"host", b"").decode("latin-1"))
            if not local or (origin is not None and not _is_loopback(origin.decode("latin-1"))):
                error = LatticeError("invalid_request", "This endpoint answers only to loopback names.")
                await _openai_error(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_loopback(url: str) -> bool:
    try:
        return urlsplit(url).hostname in _LOOPBACK
    except ValueError:
        return False


async def _body(request: Request) -> bytes:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise LatticeError("invalid_request", "Send `Content-Type: application/json`.")
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY:
            raise LatticeError("body_too_large")
        chunks.append(chunk)
    return b"".join(chunks)


async def _while_connected(request: Request, answering: Coroutine[Any, Any, EngineReply]) -> EngineReply:
    """The engine's answer; the engine is stopped when the caller leaves before it comes."""
    answer = asyncio.create_task(answering)
    left = asyncio.create_task(_left(request))
    try:
        await asyncio.wait((answer, left), return_when=asyncio.FIRST_COMPLETED)
    finally:
        left.cancel()
        if not answer.done():
            answer.cancel()
    if not answer.done():
        raise ClientDisconnect
    return answer.result()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _answer(reply: EngineReply) -> Response:
    if reply.events is not None:
        return StreamingResponse(_relay(reply.events), media_type="text/event-stream")
    if 400 <= reply.status < 500:
        return Response(error_payload(reply.status, reply.body), reply.status, media_type="application/json")
    if reply.status != 200:
        raise LatticeError("engine_unavailable", f"The engine answered with HTTP status {reply.status}.")
    return Response(reply.body, media_type="application/json")


async def _relay(events: EventStream) -> AsyncIterator[bytes]:
    try:
        async for batch in events:
            yield b"".join(batch)
    except LatticeError as error:
        yield b"data: " + msgspec.json.encode(error.openai_body()) + b"\n\n"
    finally:
        await events.aclose()


def _catalogued(handler: Handler) -> Handler:
    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except LatticeError as error:
            return _openai_error(error)
        except ClientDisconnect:
            return Response(status_code=499)

    return guarded


def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "internal")
    return _openai_error(LatticeError(code))


def _openai_error(error: LatticeError) -> Response:
    response = _json(error.status, error.openai_body())
    response.headers["x-should-retry"] = "true" if error.spec.retry else "false"
    return response


def _json(status: int, value: Any) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")
