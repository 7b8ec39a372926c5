"""One leased work: check the sender, open, ask the engine, seal the answer, sign the receipt."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from lattice.core.chat import parse_object
from lattice.core.clock import Clock
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.core.relay import LeasedWork, ModelOffer, ResultFrame
from lattice.runtime.board import ModelBoard
from lattice.runtime.engines.base import Engine, EngineReply, EventStream
from lattice.runtime.replies import StreamRewriter, error_payload, rewrite_whole
from lattice.runtime.requests import prepare_chat, wants_usage
from lattice.runtime.work_keys import WorkKeys
from lattice.sealing.envelope import Envelope, check_sender, open_request
from lattice.sealing.frames import MAX_REPLY_PAYLOAD, ReplySealer
from lattice.sealing.header import Header
from lattice.sealing.identity import IdentityKey, PublicIdentity
from lattice.sealing.receipt import Receipt, sign_receipt
from lattice.sealing.trailer import Trailer

REMEMBERED_WORKS = 50_000


class FrameSink(Protocol):
    """Where sealed frames go: the relay's outbox."""

    def put(self, frame: ResultFrame) -> None:
        """Queue a frame for sending; never blocks."""
        ...

    async def room(self) -> None:
        """Wait while too much is queued, so that a fast engine can't outrun a slow uplink without bound."""
        ...


class SeenWorks:
    """Which work ran before. A work id stands for one envelope, and each attempt runs once.

    In memory only: after a restart a gateway could hand out an old envelope again until its header expires. It would
    learn nothing by that, since the answer is sealed to the sender.
    """

    def __init__(self, limit: int = REMEMBERED_WORKS) -> None:
        self._limit = limit
        self._works: OrderedDict[str, tuple[bytes, int]] = OrderedDict()

    def admit(self, work_id: str, envelope_hash: bytes, attempt: int) -> None:
        """Remember this attempt, or raise `envelope_invalid` for a replay."""
        known = self._works.get(work_id)
        if known is not None:
            if known[0] != envelope_hash:
                raise LatticeError("envelope_invalid", "The work id was used before with other content.")
            if attempt <= known[1]:
                raise LatticeError("envelope_invalid", "This attempt of the work ran before.")
        self._works[work_id] = (envelope_hash, attempt)
        if len(self._works) > self._limit:
            self._works.popitem(last=False)


class _Job(msgspec.Struct):
    """Work that passed every check."""

    leased: LeasedWork
    header: Header
    envelope_hash: bytes
    body: dict[str, Any]
    offer: ModelOffer
    sealer: ReplySealer
    sequence: int = 0


class WorkRunner:
    """Runs works of one runtime. Raises LatticeError for what the relay reports as a failed attempt."""

    def __init__(
        self,
        *,
        runtime: str,
        identity: IdentityKey,
        keys: WorkKeys,
        allows: Callable[[PublicIdentity], bool],
        engine: Engine,
        board: ModelBoard,
        clock: Clock,
    ) -> None:
        self._runtime = runtime
        self._identity = identity
        self._keys = keys
        self._allows = allows
        self._engine = engine
        self._board = board
        self._clock = clock
        self._seen = SeenWorks()

    async def run(self, leased: LeasedWork, sink: FrameSink) -> None:
        """Answer one work into `sink`. Cancelling it stops the engine at once."""
        job = self._open(leased)
        if job.header.task == "embeddings":
            job.body["model"] = job.offer.id
            reply = await self._engine.embeddings(job.body)
            keep_usage = True
        else:
            keep_usage = wants_usage(job.body)
            prepare_chat(job.body, job.offer.id, job.header.max_output_tokens, job.header.stream)
            reply = await self._engine.chat(job.body, stream=job.header.stream)
        if reply.events is not None:
            await self._stream(job, reply.events, keep_usage, sink)
        else:
            self._whole(job, reply, sink)

    def _open(self, leased: LeasedWork) -> _Job:
        """Everything that is checked before the engine hears of the work, cheapest and least trusting first."""
        envelope = Envelope.decode(leased.envelope)
        header = check_sender(envelope, self._allows, self._clock.now_ms())
        if header.work_id != leased.work_id:
            raise LatticeError("envelope_invalid", "The envelope belongs to another work.")
        pair = self._keys.pair(header.key_id)
        self._seen.admit(header.work_id, envelope.envelope_hash, leased.attempt)
        opened = open_request(envelope, pair, self._runtime)
        if header.task == "chat" and header.max_output_tokens < 1:
            raise LatticeError("invalid_request", "`max_output_tokens` must be at least 1.")
        offer = self._board.resolve(header.model, header.task, self._runtime)
        return _Job(
            leased=leased,
            header=header,
            envelope_hash=envelope.envelope_hash,
            body=parse_object(opened.body),
            offer=offer,
            sealer=opened.reply_sealer(leased.attempt),
        )

    async def _stream(self, job: _Job, events: EventStream, keep_usage: bool, sink: FrameSink) -> None:
        rewriter = StreamRewriter(job.header.model, keep_usage)
        last = b""
        try:
            async for batch in events:
                payload = rewriter.feed(batch)
                if rewriter.done:
                    last = payload
                    break
                if payload:
                    tokens = rewriter.tokens
                    self._put(job, sink, job.sealer.seal(payload, tokens), tokens)
                    await sink.room()
        finally:
            await events.aclose()
        if not rewriter.complete:
            raise LatticeError("runtime_failed", "The engine stopped in the middle of its answer.")
        trailer = Trailer(
            finish_reason=rewriter.finish_reason, usage=rewriter.final_usage(), model_digest=job.offer.digest
        )
        self._finish(job, sink, last, trailer)

    def _whole(self, job: _Job, reply: EngineReply, sink: FrameSink) -> None:
        if reply.status >= 500:
            code = "engine_unavailable" if reply.status == 503 else "runtime_failed"
            raise LatticeError(code, f"The engine answered with HTTP status {reply.status}.")
        if reply.status >= 400:
            trailer = Trailer(status=reply.status, model_digest=job.offer.digest)
            self._finish(job, sink, error_payload(reply.status, reply.body), trailer)
            return
        if reply.status != 200 or job.header.stream:
            raise LatticeError("runtime_failed", "The engine did not answer in the form that was asked for.")
        whole = rewrite_whole(reply.body, job.header.model)
        trailer = Trailer(finish_reason=whole.finish_reason, usage=whole.usage, model_digest=job.offer.digest)
        self._finish(job, sink, whole.payload, trailer)

    def _finish(self, job: _Job, sink: FrameSink, payload: bytes, trailer: Trailer) -> None:
        if len(payload) > MAX_REPLY_PAYLOAD:
            raise LatticeError("runtime_failed", "The engine's answer is too large for the relay.")
        frame = job.sealer.seal_final(payload, trailer)
        receipt = Receipt(
            runtime=self._runtime,
            work_id=job.leased.work_id,
            attempt=job.leased.attempt,
            envelope_hash=b64url(job.envelope_hash),
            frames_hash=b64url(job.sealer.ciphertext_hash),
            usage=trailer.usage,
            model=job.offer.id,
            model_digest=job.offer.digest,
            finished_at_ms=self._clock.now_ms(),
            status=trailer.status,
        )
        signed = sign_receipt(self._identity, receipt).encode()
        self._put(job, sink, frame, trailer.usage.completion_tokens, signed)

    @staticmethod
    def _put(job: _Job, sink: FrameSink, frame: bytes, tokens: int, receipt: bytes | None = None) -> None:
        leased = job.leased
        sink.put(ResultFrame(leased.work_id, leased.attempt, job.sequence, tokens, frame, receipt is not None, receipt))
        job.sequence += 1
