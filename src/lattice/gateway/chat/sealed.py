"""Mode `end_to_end`: the caller sealed the work to a machine's key. The gateway routes by the header, meters by the
receipt, and passes ciphertext on; it never holds a key that opens any of it.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING

from lattice.core.chat import Usage
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, b64url, is_id
from lattice.core.models import PersonalTarget, parse_model
from lattice.gateway.chat.headers import note_gateway_time, work_headers
from lattice.gateway.chat.service import Ticket
from lattice.gateway.http.exchange import Exchange
from lattice.gateway.identity.keys import KeyRecord
from lattice.sealing.envelope import Envelope
from lattice.sealing.frames import MAX_REPLY_FRAME
from lattice.sealing.header import Header, Task
from lattice.sealing.key_config import KeyConfig, require_current
from lattice.sealing.stream import MEDIA_REPLY, RecordType, encode_error, encode_frame, encode_record
from lattice.sealing.trailer import MAX_TOKENS

if TYPE_CHECKING:
    from lattice.gateway.state import Gateway

_MEDIA = MEDIA_REPLY.encode()
_KEEP_ALIVE = encode_record(RecordType.KEEPALIVE)


async def serve_sealed(gateway: Gateway, exchange: Exchange, key: KeyRecord, body: bytes, task: Task) -> None:
    """Relay one sealed work and its reply."""
    envelope = Envelope.decode(body, gateway.settings.max_body_bytes)
    header = envelope.parsed
    target = _check_header(header, task, gateway.clock.now_ms())
    key.require_model(header.model)
    route = await gateway.route(key, target, task)
    _require_known_key(gateway, route.link.key_config, header, route.link.encoded_key_config)
    size = sum(len(frame) for frame in envelope.frames)
    ticket = await gateway.works.admit(key, route, envelope, sealing="end_to_end", input_bytes=size, choices=1)
    if not isinstance(ticket, Ticket):  # end-to-end replies are never kept: the gateway could not read them
        raise LatticeError("internal")
    exchange.response_headers += work_headers(ticket, b"end_to_end")
    watcher = exchange.watch(lambda: gateway.hub.cancel(ticket.work))
    try:
        await _relay(gateway, exchange, ticket)
    finally:
        watcher.cancel()


async def _relay(gateway: Gateway, exchange: Exchange, ticket: Ticket) -> None:
    hashed = hashlib.sha256()
    try:
        usage, receipt, status = await _pass_frames(gateway, exchange, ticket, hashed)
    except BaseException as error:
        await gateway.works.abandon(ticket, error)
        if not exchange.started or not isinstance(error, LatticeError):
            raise
        error.request_id = exchange.request_id
        await exchange.write(encode_error(error), more=False)
        return
    try:
        if status >= 400:
            await gateway.works.abandon(ticket, LatticeError("runtime_failed", "The engine refused the request."))
        else:
            await gateway.works.settle(ticket, usage)
    except LatticeError as error:
        await exchange.write(encode_error(error), more=False)
        return
    await exchange.write(encode_record(RecordType.RECEIPT, receipt), more=False)


async def _pass_frames(
    gateway: Gateway, exchange: Exchange, ticket: Ticket, hashed: hashlib._Hash
) -> tuple[Usage, bytes, int]:
    while True:
        try:
            async with asyncio.timeout(gateway.settings.keep_alive_seconds):
                frame = await ticket.work.take()
        except TimeoutError:
            await _begin(exchange, ticket)
            await exchange.write(_KEEP_ALIVE)
            continue
        if len(frame.frame) > MAX_REPLY_FRAME or not 0 <= frame.tokens <= MAX_TOKENS:
            raise LatticeError("reply_invalid", "A frame or its token count is out of range.")
        hashed.update(frame.frame)
        receipt = gateway.works.verify(ticket, frame, hashed.digest()) if frame.final else None
        if receipt is not None and receipt.usage.completion_tokens != frame.tokens:
            raise LatticeError("receipt_invalid", "The receipt's usage is not the last frame's token count.")
        await _begin(exchange, ticket)
        await exchange.write(encode_frame(frame.frame, frame.tokens, frame.final))
        ticket.delivered_tokens = frame.tokens
        if receipt is not None and frame.receipt is not None:
            return receipt.usage, frame.receipt, receipt.status


async def _begin(exchange: Exchange, ticket: Ticket) -> None:
    if not exchange.started:
        note_gateway_time(exchange, ticket)
        await exchange.start(200, _MEDIA)


def _check_header(header: Header, task: Task, now_ms: int) -> PersonalTarget:
    target = parse_model(header.model)
    if not isinstance(target, PersonalTarget):
        raise LatticeError("sealing_mode_unavailable", "Only a named machine can be sealed to end to end.")
    if target.runtime_id != header.runtime or not is_id(Prefix.WORK, header.work_id) or header.task != task:
        raise LatticeError("envelope_invalid", "The header's runtime, work id or task does not fit the request.")
    if header.expires_at_ms <= now_ms:
        raise LatticeError("envelope_expired")
    return target


def _require_known_key(gateway: Gateway, config: KeyConfig | None, header: Header, encoded: bytes) -> None:
    """Refuse work sealed to a key that is surely gone, before anything is queued or held."""
    if config is None:
        raise LatticeError("work_key_expired", f"{header.runtime} has announced no work key.")
    if config.key_id == header.key_id:
        try:
            require_current(config, gateway.clock.now_ms())
        except LatticeError as error:
            error.details["key_config"] = b64url(encoded)
            raise
