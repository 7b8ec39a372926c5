"""Real HTTP servers for tests: an OpenAI-compatible model server and a relay gateway that speaks the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from lattice.core.errors import LatticeError
from lattice.core.relay import (
    RELAY_MEDIA_TYPE,
    Announcement,
    FailRequest,
    FramesRequest,
    LeasedWork,
    PollReply,
    PollRequest,
    RefsRequest,
    RelayAck,
    ResultFrame,
    WorkRef,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}


@contextlib.asynccontextmanager
async def listening(app: web.Application, port: int = 0) -> AsyncIterator[str]:
    """Serve on loopback; gives the address."""
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class ModelServer:
    """A small OpenAI-compatible server. Tools are answered with a tool call, a tool result with text."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.cancelled = asyncio.Event()
        self.slow = False
        self.key: str | None = None
        self.breaks_off = False
        self.answer: Handler | None = None
        self.models: list[str] = ["nomic-embed-text", "llama3.2"]

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[str]:
        """Serve; gives the base_url."""
        app = web.Application(client_max_size=2**25)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/embeddings", self._embeddings)
        async with listening(app) as url:
            yield f"{url}/v1"

    async def _models(self, request: web.Request) -> web.StreamResponse:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return web.json_response({"error": {"message": "no"}}, status=401)
        return web.json_response({"object": "list", "data": [{"id": m, "object": "model"} for m in self.models]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self.answer is not None:
            return await self.answer(request)
        if self.slow:
            await self._hang()
        message = self._message(body)
        if body.get("stream"):
            return await self._stream(request, body, message)
        finish = "tool_calls" if message.get("tool_calls") else "stop"
        usage = {"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11}
        return web.json_response(
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": finish}],
                "usage": usage,
                "vendor_extra": {"kept": 1.0},
            }
        )

    def _message(self, body: dict[str, Any]) -> dict[str, Any]:
        last = body["messages"][-1]
        if last["role"] == "tool":
            return {"role": "assistant", "content": f"It is {last['content']}."}
        if body.get("tools"):
            return {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}
        return {"role": "assistant", "content": "hello"}

    async def _stream(self, request: web.Request, body: dict[str, Any], message: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)

        async def send(choices: list[dict[str, Any]], **more: Any) -> None:
            event = {"id": "c", "object": "chat.completion.chunk", "model": body["model"], "choices": choices, **more}
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")

        await send([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        if message.get("tool_calls"):
            delta: dict[str, Any] = {"tool_calls": [{"index": 0, **TOOL_CALL}]}
            await send([{"index": 0, "delta": delta, "finish_reason": None}])
        for letter in message["content"] or "":
            await send([{"index": 0, "delta": {"content": letter}, "finish_reason": None}])
            if self.breaks_off and request.transport is not None:
                request.transport.abort()
                return response
            if self.slow:
                await self._hang()
        finish = "tool_calls" if message.get("tool_calls") else "stop"
        await send([{"index": 0, "delta": {}, "finish_reason": finish}])
        if (body.get("stream_options") or {}).get("include_usage"):
            await send([], usage={"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11})
        await response.write(b"data: [DONE]\n\n")
        return response

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.bodies.append(body)
        data = [{"object": "embedding", "index": 0, "embedding": [0.25, -1.5]}]
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        return web.json_response({"object": "list", "model": body["model"], "data": data, "usage": usage})

    async def _hang(self) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


class RelayGateway:
    """The gateway's half of the relay, as plain as the protocol allows, with faults that a test can switch on."""

    def __init__(self) -> None:
        self.polls: list[PollRequest] = []
        self.posts: list[tuple[float, FramesRequest]] = []
        self.frames: dict[tuple[str, int, int], ResultFrame] = {}
        self.fails: list[FailRequest] = []
        self.renewals: list[RefsRequest] = []
        self.announcements: list[Announcement] = []
        self.lost: set[WorkRef] = set()
        self.refusal: tuple[int, dict[str, Any]] | None = None
        self.renewal_refusal: LatticeError | None = None
        self.break_frames = 0
        self.break_after_taking = 0
        self.frames_delay_s = 0.0
        self.concurrent_posts = 0
        self.most_concurrent_posts = 0
        self.hold_s = 5.0
        self.results_url: str | None = None
        self._outgoing: list[PollReply] = []
        self._news = asyncio.Event()
        self._seq = 0
        self._session = ""
        self.changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def run(self, port: int = 0) -> AsyncIterator[str]:
        """Serve; gives the relay URL."""
        app = web.Application(client_max_size=2**26)
        for name in ("poll", "frames", "renew", "fail"):
            app.router.add_post(f"/v1/relay/{name}", getattr(self, f"_{name}"))
        async with listening(app, port) as url:
            yield url

    # -- what the test does ---------------------------------------------------------------------------------------

    def hand_over(self, *works: LeasedWork, cancels: tuple[WorkRef, ...] = (), **more: Any) -> None:
        """Put a batch into the next reply."""
        self._outgoing.append(PollReply(0, works, cancels, **more))
        self._news.set()

    async def until(self, condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
        """Wait until something that the daemon did makes `condition` true."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def frames_of(self, work_id: str, attempt: int = 1) -> list[ResultFrame]:
        """The frames of an attempt, in order and without repeats."""
        found = [f for (w, a, _), f in self.frames.items() if (w, a) == (work_id, attempt)]
        return sorted(found, key=lambda frame: frame.sequence)

    def finished(self, work_id: str, attempt: int = 1) -> bool:
        """Whether the last frame came."""
        return any(frame.final for frame in self.frames_of(work_id, attempt))

    # -- routes -----------------------------------------------------------------------------------------------------

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        poll = msgspec.msgpack.decode(await request.read(), type=PollRequest)
        self._note(self.polls, poll)
        if self.refusal:
            status, body = self.refusal
            return web.json_response(body, status=status)
        if poll.announce is not None:
            self._note(self.announcements, poll.announce)
        self._session = poll.session
        if not self._outgoing:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), self.hold_s)
        if self._session != poll.session:
            return self._answer(PollReply(0, ended=True))
        self._seq += 1
        reply = self._outgoing.pop(0) if self._outgoing else PollReply(0)
        return self._answer(msgspec.structs.replace(reply, seq=self._seq, results_url=self.results_url))

    async def _frames(self, request: web.Request) -> web.StreamResponse:
        message = msgspec.msgpack.decode(await request.read(), type=FramesRequest)
        self.concurrent_posts += 1
        self.most_concurrent_posts = max(self.most_concurrent_posts, self.concurrent_posts)
        try:
            if self.break_frames:
                self.break_frames -= 1
                return self._abort(request)
            if self.frames_delay_s:
                await asyncio.sleep(self.frames_delay_s)
            for frame in message.frames:
                self.frames.setdefault((frame.work_id, frame.attempt, frame.sequence), frame)
            self._note(self.posts, (asyncio.get_running_loop().time(), message))
            if self.break_after_taking:
                self.break_after_taking -= 1
                return self._abort(request)
        finally:
            self.concurrent_posts -= 1
        refs = {WorkRef(frame.work_id, frame.attempt) for frame in message.frames}
        return self._answer(RelayAck(tuple(refs & self.lost)))

    async def _renew(self, request: web.Request) -> web.StreamResponse:
        message = msgspec.msgpack.decode(await request.read(), type=RefsRequest)
        self._note(self.renewals, message)
        if self.renewal_refusal:
            return web.json_response(self.renewal_refusal.body(), status=self.renewal_refusal.status)
        return self._answer(RelayAck(tuple(set(message.works) & self.lost)))

    async def _fail(self, request: web.Request) -> web.StreamResponse:
        self._note(self.fails, msgspec.msgpack.decode(await request.read(), type=FailRequest))
        return self._answer(RelayAck())

    def _note(self, notes: list[Any], value: Any) -> None:
        notes.append(value)
        self.changed.set()

    @staticmethod
    def _abort(request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    @staticmethod
    def _answer(message: Any) -> web.StreamResponse:
        return web.Response(body=msgspec.msgpack.encode(message), content_type=RELAY_MEDIA_TYPE)
