"""The daemons' four routes. Hot path: plain ASGI endpoints, MessagePack in and out."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec
from starlette.types import Receive, Scope, Send

from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.core.relay import (
    FAIL_CODES,
    MAX_FRAMES_PER_POST,
    MAX_RELAY_BODY,
    POLL_HOLD_MS,
    PROTOCOL_HISTORY,
    PROTOCOL_VERSION,
    RELAY_MEDIA_TYPE,
    FailRequest,
    FramesRequest,
    PollReply,
    PollRequest,
    RefsRequest,
    RelayAck,
    WorkRef,
)
from lattice.gateway.http.exchange import Exchange
from lattice.gateway.relay.hub import Hub
from lattice.gateway.relay.link import Link
from lattice.gateway.runtimes.credentials import RuntimeCredentials
from lattice.gateway.runtimes.presence import Presence
from lattice.gateway.runtimes.rows import RuntimeRow

T = TypeVar("T")

_encode = msgspec.msgpack.Encoder().encode
_MEDIA = RELAY_MEDIA_TYPE.encode()
_BODY_SECONDS = 30.0
_MAX_CALL = 1024 * 1024
"""Largest body of the calls that carry no frames."""

_MAX_NAME = 64
_QUEUE_RETRY_MS = 2_000

_poll = msgspec.msgpack.Decoder(PollRequest)
_frames = msgspec.msgpack.Decoder(FramesRequest)
_refs = msgspec.msgpack.Decoder(RefsRequest)
_fail = msgspec.msgpack.Decoder(FailRequest)


class RelayEndpoints:
    """Poll, frames, renew and fail, for runtimes that show their credential."""

    def __init__(self, hub: Hub, credentials: RuntimeCredentials, presence: Presence, results_url: str) -> None:
        self._hub = hub
        self._credentials = credentials
        self._presence = presence
        self._results_url = results_url

    async def poll(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold the daemon's poll until there is work for it, then answer with everything there is."""
        exchange = Exchange(scope, receive, send)
        runtime, request = await self._read(exchange, _poll)
        if request.protocol != PROTOCOL_VERSION:
            raise LatticeError(
                "protocol_unsupported",
                f"The daemon speaks relay protocol {request.protocol}.",
                details={"supported": sorted(PROTOCOL_HISTORY)},
            )
        if max(len(request.session), len(request.instance)) > _MAX_NAME:
            raise LatticeError("invalid_request", f"A session's name has at most {_MAX_NAME} characters.")
        link = await self._presence.link(runtime, request.announce)
        if link.session != request.session and request.session in link.sessions:
            await self._answer(exchange, PollReply(seq=0, ended=True))
            return
        lost = link.open_poll(request, self._presence.now_ms())
        if lost:
            error = LatticeError("runtime_failed", "The machine's daemon was restarted.")
            await self._hub.give_back(link, lost, error)
        await self._hub.promote(link)
        if not (self._hub.draining or request.draining) and await self._held(exchange, link, request.session):
            return
        now = self._presence.now_ms()
        if link.session != request.session:
            await self._credentials.authenticate(exchange.headers.get("authorization"))  # revoked or paired anew?
            await self._answer(exchange, PollReply(seq=0, ended=True, now_ms=now))
            return
        link.poll_ended(now, dropped=False)
        await self._answer(exchange, link.reply(now, self._results_url, self._hub.draining))

    async def frames(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take reply frames of any number of works."""
        exchange = Exchange(scope, receive, send)
        runtime, request = await self._read(exchange, _frames, MAX_RELAY_BODY)
        if len(request.frames) > MAX_FRAMES_PER_POST:
            raise LatticeError("invalid_request", f"More than {MAX_FRAMES_PER_POST} frames in one request.")
        link = self._existing_link(runtime)
        await self._answer(exchange, self._hub.accept(link, request))

    async def renew(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Keep leases alive."""
        exchange = Exchange(scope, receive, send)
        runtime, request = await self._read(exchange, _refs)
        link = self._existing_link(runtime)
        await self._answer(exchange, await self._hub.renew(link, request.works))

    async def fail(self, scope: Scope, receive: Receive, send: Send) -> None:
        """End an attempt without an answer, or give it back."""
        exchange = Exchange(scope, receive, send)
        runtime, request = await self._read(exchange, _fail)
        link = self._existing_link(runtime)
        work = link.current(request.work_id, request.attempt)
        if work is None:
            await self._answer(exchange, RelayAck((WorkRef(request.work_id, request.attempt),)))
            return
        error = _failure(link, request)
        if request.requeue:
            await self._hub.give_back(link, [work], error)
        else:
            work.fail(error)
        await self._answer(exchange, RelayAck())

    # --- private ---------------------------------------------------------------------------------------------

    async def _held(self, exchange: Exchange, link: Link, session: str) -> bool:
        """Wait for news; True where the daemon went away meanwhile, so that there is nobody to answer."""
        if link.has_news:
            return False
        watcher = asyncio.ensure_future(exchange.disconnected())
        watcher.add_done_callback(lambda task: None if task.cancelled() else link.wake())
        try:
            await link.wait(session, POLL_HOLD_MS / 1000)
        finally:
            gone = watcher.done()
            watcher.cancel()
        if gone and link.session == session:
            link.poll_ended(self._presence.now_ms(), dropped=True)
        return gone

    async def _read(
        self, exchange: Exchange, decoder: msgspec.msgpack.Decoder[T], limit: int = _MAX_CALL
    ) -> tuple[RuntimeRow, T]:
        """Who calls, and with what; nothing is read for somebody who shows no credential."""
        runtime = await self._credentials.authenticate(exchange.headers.get("authorization"))
        try:
            return runtime, decoder.decode(await exchange.body(limit, _BODY_SECONDS))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise LatticeError("invalid_request", "The body is not a relay message of this protocol.") from None

    def _existing_link(self, runtime: RuntimeRow) -> Link:
        link = self._hub.links.get(runtime.id)
        if link is None:
            # This gateway was restarted: whatever the daemon still works on was voided.
            raise LatticeError("lease_lost", "This gateway knows no session of the runtime; poll first.")
        return link

    async def _answer(self, exchange: Exchange, message: msgspec.Struct) -> None:
        await exchange.respond(200, _MEDIA, _encode(message))


def _failure(link: Link, request: FailRequest) -> LatticeError:
    code = request.code if request.code in FAIL_CODES else "runtime_failed"
    details = {}
    if code == "work_key_expired" and link.encoded_key_config:
        details["key_config"] = b64url(link.encoded_key_config)
    # The daemon's own words may quote what it opened, so only the catalogue's words travel on, unless it is a
    # parameter name that the caller has to know.
    message = request.message if code in ("unsupported_parameter", "model_not_found") else None
    retry_after_ms = _QUEUE_RETRY_MS if code == "queue_full" else None
    return LatticeError(code, message[:200] if message else None, details=details, retry_after_ms=retry_after_ms)
