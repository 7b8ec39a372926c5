"""A model server whose every token a test releases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.harness import MODEL
from tests.unit.runtime.servers import ModelServer


class PacedServer(ModelServer):
    """Streams one word, waits for `go_on`, then ends; answers whole requests at once, unless `hold` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.models = [MODEL]
        self.answer = self._paced
        self.go_on = asyncio.Event()
        self.hold = False
        self.left = asyncio.Event()

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Answers begun in the block wait until it ends."""
        self.go_on.clear()
        try:
            yield
        finally:
            self.go_on.set()

    async def _paced(self, request: web.Request) -> web.StreamResponse:
        body = self.bodies[-1]
        try:
            if body.get("stream"):
                return await self._words(request, body)
            if self.hold:
                await self.go_on.wait()
            return web.json_response(_whole(body, "one two"))
        except asyncio.CancelledError:
            self.left.set()
            raise

    async def _words(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(_chunk(body, {"content": "one"}))
        await self.go_on.wait()
        await response.write(_chunk(body, {"content": " two"}, "stop"))
        usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
        await response.write(_event({**_base(body), "choices": [], "usage": usage}))
        await response.write(b"data: [DONE]\n\n")
        return response


def _base(body: dict[str, Any]) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def _chunk(body: dict[str, Any], delta: dict[str, Any], finish: str | None = None) -> bytes:
    return _event({**_base(body), "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})


def _whole(body: dict[str, Any], text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }
