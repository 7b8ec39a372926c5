"""Mode `gateway`: for an unmodified OpenAI client the gateway seals the body, opens the reply, and forgets both."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from lattice.core.chat import RequestShape, parse_shape
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.core.models import PersonalTarget, parse_model
from lattice.gateway.chat.headers import note_gateway_time, work_headers
from lattice.gateway.chat.service import Ticket
from lattice.gateway.http.boundary import error_body
from lattice.gateway.http.exchange import Exchange
from lattice.gateway.idempotency import Guard, StoredReply, peek
from lattice.gateway.identity.keys import KeyRecord
from lattice.gateway.routing import Route
from lattice.sealing.envelope import SealedRequest, seal_request
from lattice.sealing.frames import OpenedFrame, Trailer
from lattice.sealing.header import Task

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

_encode = msgspec.json.Encoder().encode

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

MAX_OUTPUT_TOKENS = 2**31 - 1
"""What a sealed header can say."""


async def serve_plain(gateway: Gateway, exchange: Exchange, key: KeyRecord, body: bytes, task: Task) -> None:
    """Answer one plain request, streamed or whole."""
    shape = parse_shape(body)
    if (shape.max_output_tokens or 0) > MAX_OUTPUT_TOKENS:
        raise LatticeError("invalid_request", f"`max_tokens` must be at most {MAX_OUTPUT_TOKENS}.")
    key.require_model(shape.model)
    guard = gateway.guard(key, exchange.headers, task, body)
    if guard is not None:
        kept = await gateway.store.read(peek, guard.claim, gateway.clock.now_ms())
        if kept is not None:
            await _replay(exchange, guard, kept)
            return
    target = parse_model(shape.model)
    route = await gateway.route(key, target, task)
    sealed = _seal(gateway, shape, route, body, task, isinstance(target, PersonalTarget))
    ticket = await gateway.works.admit(
        key,
        route,
        sealed.envelope,
        sealing="gateway",
        input_bytes=len(body),
        choices=shape.choices,
        claim=None if guard is None else guard.claim,
    )
    if isinstance(ticket, StoredReply):
        await _replay(exchange, guard, ticket)
        return
    exchange.response_headers += work_headers(ticket, b"gateway")
    reply = Reply(gateway, exchange, ticket, sealed)
    watcher = exchange.watch(lambda: gateway.hub.cancel(ticket.work))
    try:
        if shape.stream and task == "chat":
            await reply.stream()
        else:
            await reply.whole(guard)
    finally:
        watcher.cancel()


class Reply:
    """The way of one sealed reply back to a plain caller."""

    def __init__(self, gateway: Gateway, exchange: Exchange, ticket: Ticket, sealed: SealedRequest) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._ticket = ticket
        self._opener = sealed.reply_opener()

    async def whole(self, guard: Guard | None) -> None:
        """Collect the reply, settle, then answer: what was answered is always settled."""
        parts: list[bytes] = []
        try:
            while True:
                opened = await self._next()
                parts.append(opened.payload)
                if opened.trailer is not None:
                    break
        except BaseException as error:
            await self._gateway.works.abandon(self._ticket, error)
            raise
        body = b"".join(parts)
        status = opened.trailer.status
        await self._finish(opened.trailer, None if guard is None else guard.box.seal(body))
        note_gateway_time(self._exchange, self._ticket)
        await self._exchange.respond(status, b"application/json", body)

    async def stream(self) -> None:
        """Pass events on as they come. An error after the first byte is an event, and then there is no `[DONE]`."""
        exchange = self._exchange
        try:
            trailer = await self._pass_on()
        except BaseException as error:
            await self._gateway.works.abandon(self._ticket, error)
            if not exchange.started or not isinstance(error, LatticeError):
                raise
            await self._error_event(error)
            return
        try:
            await self._finish(trailer, None)
        except LatticeError as error:
            await self._error_event(error)
            return
        if trailer.status < 400:
            await exchange.write(DONE, more=False)

    async def _pass_on(self) -> Trailer:
        exchange, ticket = self._exchange, self._ticket
        while True:
            try:
                async with asyncio.timeout(self._gateway.settings.keep_alive_seconds):
                    opened = await self._next()
            except TimeoutError:
                await self._begin()
                await exchange.write(KEEP_ALIVE)
                continue
            trailer = opened.trailer
            if trailer is not None and trailer.status >= 400:
                await self._refused(trailer.status, opened.payload)
                return trailer
            await self._begin()
            if opened.payload:
                await exchange.write(opened.payload)
            if trailer is not None:
                return trailer
            ticket.delivered_tokens = ticket.work.tokens

    async def _refused(self, status: int, error: bytes) -> None:
        """The engine's own error, in OpenAI's shape already: a plain answer, or an event where a stream has begun."""
        if self._exchange.started:
            await self._exchange.write(b"data: " + error + b"\n\n", more=False)
        else:
            await self._exchange.respond(status, b"application/json", error)

    async def _next(self) -> OpenedFrame:
        work = self._ticket.work
        frame = await work.take()
        opened = self._opener.open(frame.frame, frame.tokens, frame.final)
        if self._opener.attempt != frame.attempt:
            raise LatticeError("reply_invalid", "The reply was sealed for another attempt.")
        work.tokens = frame.tokens
        if opened.trailer is not None:
            receipt = self._gateway.works.verify(self._ticket, frame, self._opener.ciphertext_hash)
            if (receipt.usage, receipt.status) != (opened.trailer.usage, opened.trailer.status):
                raise LatticeError("receipt_invalid", "The receipt's usage or status is not the sealed reply's.")
            if opened.trailer.status != 200 and opened.trailer.status < 400:
                # 204 with a body, for instance, would be read as the start of the next answer on the connection.
                raise LatticeError("reply_invalid", "The reply's status is neither 200 nor an error.")
        return opened

    async def _finish(self, trailer: Trailer, result: bytes | None) -> None:
        works = self._gateway.works
        if trailer.status >= 400:
            await works.abandon(self._ticket, LatticeError("runtime_failed", "The engine refused the request."))
            return
        await works.settle(self._ticket, trailer.usage, result, trailer.status)

    async def _begin(self) -> None:
        if not self._exchange.started:
            note_gateway_time(self._exchange, self._ticket)
            self._exchange.response_headers.append((b"cache-control", b"no-cache"))
            await self._exchange.start(200, b"text/event-stream")

    async def _error_event(self, error: LatticeError) -> None:
        error.request_id = self._exchange.request_id
        body = _encode(error_body(error, self._exchange.scope["path"]))
        await self._exchange.write(b"data: " + body + b"\n\n", more=False)


def _seal(
    gateway: Gateway, shape: RequestShape, route: Route, body: bytes, task: Task, personal: bool
) -> SealedRequest:
    config = route.link.key_config
    now = gateway.clock.now_ms()
    if config is None or config.not_after_ms <= now:
        raise LatticeError("work_key_expired", f"{route.link.runtime_id} has announced no current work key.")
    _, sealed = seal_request(
        config=config,
        sender=gateway.sender_key,
        work_id=new_id(Prefix.WORK, now),
        model=shape.model if personal else route.offer.id,
        max_output_tokens=0 if task == "embeddings" else shape.max_output_tokens or route.default_max_output_tokens,
        stream=bool(shape.stream) and task == "chat",
        task=task,
        body=body,
        now_ms=now,
    )
    return sealed


async def _replay(exchange: Exchange, guard: Guard | None, kept: StoredReply) -> None:
    if guard is None:
        raise LatticeError("internal")
    exchange.response_headers.append((b"x-lattice-replayed", b"true"))
    exchange.response_headers.append((b"x-lattice-sealing", b"gateway"))
    await exchange.respond(kept.status, b"application/json", guard.box.open(kept.sealed))
