"""A machine for tests: identity, work keys, allow-list, and an app that seals work to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from lattice.core.clock import ManualClock
from lattice.core.relay import LeasedWork, ModelOffer, ResultFrame
from lattice.runtime.allow import AllowList
from lattice.runtime.board import ModelBoard
from lattice.runtime.engines.base import Engine, EngineReply
from lattice.runtime.machine import load_or_create_identity
from lattice.runtime.state import StateDir
from lattice.runtime.work import WorkRunner
from lattice.runtime.work_keys import WorkKeys
from lattice.sealing.envelope import SealedRequest, seal_request
from lattice.sealing.identity import IdentityKey
from lattice.sealing.key_config import SignedKeyConfig, verify_key_config
from lattice.sealing.receipt import Receipt, SignedReceipt, verify_receipt
from lattice.sealing.trailer import Trailer

RUNTIME = "lat_01m806efj0gzja7vzw6hq2gf8v"
MODEL = f"lattice:personal:{RUNTIME}"
OFFER = ModelOffer("local-model", ("chat", "embeddings"), digest="ab" * 32)
FAR_AWAY_MS = 2**52

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "a canary prompt"}]}


def sse(value: Any) -> bytes:
    """One event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def chunk(
    content: str | None = None, finish: str | None = None, model: str = "local-model", **more: Any
) -> dict[str, Any]:
    """A chunk of a streamed answer."""
    delta = {} if content is None else {"content": content}
    return {
        "id": "c",
        "object": "chat.completion.chunk",
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        **more,
    }


def whole(content: str = "hello", model: str = "local-model") -> dict[str, Any]:
    """A whole answer."""
    message = {"role": "assistant", "content": content}
    return {
        "id": "c",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    }


USAGE_CHUNK = {
    "id": "c",
    "model": "local-model",
    "choices": [],
    "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
}
STREAM = [
    [sse(chunk(""))],
    [sse(chunk("he")), sse(chunk("llo"))],
    [sse(chunk(finish="stop"))],
    [sse(USAGE_CHUNK), b"data: [DONE]\n\n"],
]


class ListEvents:
    """A streamed answer from a list; notes whether it was closed."""

    def __init__(self, batches: list[list[bytes]]) -> None:
        self._batches = list(batches)
        self.closed = False

    def __aiter__(self) -> ListEvents:
        return self

    async def __anext__(self) -> list[bytes]:
        if not self._batches:
            raise StopAsyncIteration
        return self._batches.pop(0)

    async def aclose(self) -> None:
        self.closed = True


class FakeEngine:
    """Answers from what the test put in and notes what it was asked."""

    name = "fake"

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.reply = EngineReply(200, msgspec.json.encode(whole()))
        self.batches = STREAM
        self.streams: list[ListEvents] = []
        self.offered: tuple[ModelOffer, ...] = (OFFER,)
        self.error: Exception | None = None
        self.started = 0
        self.stopped = 0

    async def start(self) -> None:
        self.started += 1
        if self.error:
            raise self.error

    async def stop(self) -> None:
        self.stopped += 1

    async def offers(self) -> tuple[ModelOffer, ...]:
        return self.offered

    async def chat(self, body: dict[str, Any], *, stream: bool) -> EngineReply:
        self.bodies.append(body)
        if self.error:
            raise self.error
        if stream and self.reply.status == 200:
            self.streams.append(ListEvents(self.batches))
            return EngineReply(200, events=self.streams[-1])
        return self.reply

    async def embeddings(self, body: dict[str, Any]) -> EngineReply:
        self.bodies.append(body)
        return self.reply


class FrameList:
    """A sink that keeps the frames."""

    def __init__(self) -> None:
        self.frames: list[ResultFrame] = []

    def put(self, frame: ResultFrame) -> None:
        self.frames.append(frame)

    async def room(self) -> None:
        pass


class Answer(msgspec.Struct):
    """A reply, opened and verified."""

    payload: bytes
    trailer: Trailer
    receipt: Receipt
    tokens: list[int]


class Machine:
    """Everything that a WorkRunner needs, around one engine."""

    def __init__(self, root: Path, engine: Engine, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.state = StateDir(root)
        self.identity = load_or_create_identity(self.state)
        self.keys = WorkKeys(self.state, self.identity, RUNTIME, self.clock)
        self.allow = AllowList(self.state)
        self.board = ModelBoard((OFFER,))
        self.app = IdentityKey.generate()
        self.allow.add(self.app.public.text, "test app", "app", self.clock.now_ms())
        self.runner = WorkRunner(
            runtime=RUNTIME,
            identity=self.identity,
            keys=self.keys,
            allows=self.allow.allows,
            engine=engine,
            board=self.board,
            clock=self.clock,
        )
        self._counter = 0

    def seal(self, body: Any = CHAT, *, sender: IdentityKey | None = None, **header: Any) -> SealedRequest:
        """Seal a request as the app does."""
        self._counter += 1
        signed = SignedKeyConfig.decode(self.keys.announcement[0])
        given: dict[str, Any] = {
            "config": verify_key_config(signed, self.identity.public, RUNTIME),
            "sender": sender or self.app,
            "work_id": f"work_{self._counter:026d}",
            "model": MODEL,
            "max_output_tokens": 16,
            "stream": False,
            "task": "chat",
            "body": body if isinstance(body, bytes) else msgspec.json.encode(body),
            "now_ms": self.clock.now_ms(),
        }
        return seal_request(**{**given, **header})[1]

    def lease(self, sealed: SealedRequest, attempt: int = 1, **more: Any) -> LeasedWork:
        """The work as the gateway hands it over."""
        work_id = sealed.envelope.parsed.work_id
        return LeasedWork(work_id, attempt, sealed.envelope.encode(), more.pop("deadline_ms", FAR_AWAY_MS), **more)

    async def run(self, sealed: SealedRequest, attempt: int = 1) -> Answer:
        """Run the work and open its answer as the app does."""
        sink = FrameList()
        await self.runner.run(self.lease(sealed, attempt), sink)
        return self.open(sealed, sink.frames)

    def open(self, sealed: SealedRequest, frames: list[ResultFrame]) -> Answer:
        """Verify every frame, the trailer and the receipt."""
        opener = sealed.reply_opener(frames[0].attempt)
        payloads = []
        trailer = None
        for index, frame in enumerate(frames):
            assert frame.sequence == index
            opened = opener.open(frame.frame, frame.tokens, frame.final)
            payloads.append(opened.payload)
            trailer = opened.trailer
        assert opener.finished
        assert trailer is not None
        assert frames[-1].receipt is not None
        receipt = verify_receipt(
            SignedReceipt.decode(frames[-1].receipt),
            self.identity.public,
            envelope_hash=sealed.envelope.envelope_hash,
            frames_hash=opener.ciphertext_hash,
            attempt=frames[0].attempt,
        )
        assert receipt.usage == trailer.usage
        return Answer(b"".join(payloads), trailer, receipt, [frame.tokens for frame in frames])
