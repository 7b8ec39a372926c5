"""Plans that run work: seal (or not), send, and open the reply; the one automatic second try is a renewed work key."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from lattice.client.context import Context
from lattice.client.exchange import Answer, Body, Close, Plan, read, send
from lattice.client.faults import decode_json, engine_error
from lattice.client.personal import usable
from lattice.client.pins import require_verified
from lattice.client.records import PersonalRuntime, decode_key_config
from lattice.client.requests import Ask
from lattice.client.results import Provenance, SealingMode, usage_of
from lattice.client.sealed import ReplyReader, SealedCall, current_config, renewed_config, seal_call
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.sealing.key_config import KeyConfig
from lattice.sealing.stream import MEDIA_ENVELOPE, MEDIA_REPLY

SEALING_HEADER = "x-lattice-sealing"


class SealedReply(NamedTuple):
    """A sealed reply whose first payload has been opened and waits to be pulled."""

    answer: Answer
    reader: ReplyReader
    provenance: Provenance


class Whole(NamedTuple):
    """A whole JSON answer."""

    raw: dict[str, Any]
    provenance: Provenance


def complete(context: Context, ask: Ask) -> Plan[Whole]:
    """Run work whose answer is one JSON object."""
    if ask.runtime_id is None:
        answer = yield from send_plain(context, ask)
        raw = answer.json()
        return Whole(raw, plain_provenance(answer, usage_of(raw)))
    reply = yield from open_sealed(context, ask)
    payload = yield from read_sealed(reply)
    if reply.reader.refused:
        raise refusal(reply.reader, payload, reply.provenance)
    raw = decode_json(payload)
    if not isinstance(raw, dict):
        raise LatticeError("reply_invalid", "The machine's answer is not a JSON object.")
    return Whole(raw, reply.provenance)


def send_plain(context: Context, ask: Ask) -> Plan[Answer]:
    """Send a body in the clear to the gateway, which seals it. The key makes a repeat safe; no lesser mode is taken."""
    headers = {"content-type": "application/json", "idempotency-key": ask.idempotency_key or context.new_key()}
    if ask.demanded is not None:
        headers[SEALING_HEADER] = ask.demanded
    call = context.post(ask.path, ask.body, headers, stream=ask.streamed, replay_safe=True, timeout_s=ask.timeout_s)
    answer = yield from send(call, context.policy)
    if ask.demanded is not None and answer.headers.get(SEALING_HEADER) != ask.demanded:
        yield Close(answer)
        raise _downgraded(ask.demanded, answer)
    return answer


def open_sealed(context: Context, ask: Ask) -> Plan[SealedReply]:
    """Seal to the named machine and wait for the first frame. A work key that ran out is renewed once."""
    record, config = yield from _work_key(context, ask.runtime_id or "")
    try:
        return (yield from _attempt(context, ask, _seal(context, ask, record, config)))
    except LatticeError as error:
        if error.code != "work_key_expired":
            raise
        record, config = yield from _renewed_work_key(context, record, error)
    return (yield from _attempt(context, ask, _seal(context, ask, record, config)))


def read_sealed(reply: SealedReply) -> Plan[bytes]:
    """Every payload, joined, once the receipt has been verified. An engine's refusal is a payload too."""
    body = Body()
    while True:
        while (payload := reply.reader.pull()) is not None:
            body.add(payload)
        chunk = yield from read(reply.answer)
        if not chunk:
            break
        reply.reader.push(chunk)
    settle(reply.reader, reply.provenance)
    return body.content


def settle(reader: ReplyReader, provenance: Provenance) -> None:
    """The stream has ended: check that it is whole, and complete the provenance with what was signed."""
    provenance.receipt = reader.finish()
    provenance.usage = provenance.receipt.usage


def refusal(reader: ReplyReader, payload: bytes, provenance: Provenance) -> LatticeError:
    """The error for an engine's own error answer."""
    value = decode_json(payload)
    status = reader.trailer.status if reader.trailer else 502
    return engine_error(status, value.get("error") if isinstance(value, dict) else None, provenance.request_id)


def plain_provenance(answer: Answer, usage: Any = None) -> Provenance:
    """What the gateway's headers say about an answer that it opened."""
    mode = answer.headers.get(SEALING_HEADER)
    known: dict[str, SealingMode] = {"gateway": "gateway", "end_to_end": "end_to_end"}
    return Provenance(
        sealing=known.get(mode or "", "none"),
        runtime=answer.headers.get("x-lattice-runtime"),
        work_id=answer.headers.get("x-lattice-work"),
        request_id=answer.request_id,
        usage=usage,
    )


def _work_key(context: Context, runtime_id: str) -> Plan[tuple[PersonalRuntime, KeyConfig]]:
    record = yield from usable(context, runtime_id)
    try:
        return record, current_config(record, require_verified(record), context.now_ms())
    except LatticeError as error:
        if error.code != "work_key_expired":
            raise
    record = yield from usable(context, runtime_id, fresh=True)
    return record, current_config(record, require_verified(record), context.now_ms())


def _renewed_work_key(
    context: Context, record: PersonalRuntime, error: LatticeError
) -> Plan[tuple[PersonalRuntime, KeyConfig]]:
    offered = error.details.get("key_config")
    if not isinstance(offered, str):
        record = yield from usable(context, record.id, fresh=True)
        return record, current_config(record, require_verified(record), context.now_ms())
    context.records.drop(context.origin, record.id)
    signed = decode_key_config(offered)
    config = renewed_config(signed, require_verified(record), record.id, context.now_ms())
    record = msgspec.structs.replace(record, key_config=b64url(signed.encode()))
    context.records.put(context.origin, record, context.now_ms())
    return record, config


def _seal(context: Context, ask: Ask, record: PersonalRuntime, config: KeyConfig) -> SealedCall:
    return seal_call(
        config=config,
        identity=require_verified(record),
        sender=context.store.sender(),
        work_id=context.new_work_id(),
        task=ask.task,
        shape=ask.shape,
        max_output_tokens=record.ceiling(ask.shape, ask.task),
        body=ask.body,
        now_ms=context.now_ms(),
    )


def _attempt(context: Context, ask: Ask, sealed: SealedCall) -> Plan[SealedReply]:
    headers = {"content-type": MEDIA_ENVELOPE, "accept": MEDIA_REPLY, SEALING_HEADER: "end_to_end"}
    if ask.idempotency_key is not None:
        headers["idempotency-key"] = ask.idempotency_key
    call = context.post(ask.path, sealed.content, headers, stream=True, replay_safe=True, timeout_s=ask.timeout_s)
    answer = yield from send(call, context.policy)
    try:
        _require_sealed(answer)
        reader = ReplyReader(sealed)
        while not reader.started:
            chunk = yield from read(answer)
            if not chunk:
                reader.finish()
            reader.push(chunk)
    except LatticeError as error:
        error.request_id = error.request_id or answer.request_id
        yield Close(answer)
        raise
    provenance = Provenance(
        sealing="end_to_end", runtime=sealed.runtime, work_id=sealed.work_id, request_id=answer.request_id
    )
    return SealedReply(answer, reader, provenance)


def _require_sealed(answer: Answer) -> None:
    media = (answer.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if media != MEDIA_REPLY or answer.headers.get(SEALING_HEADER, "end_to_end") != "end_to_end":
        raise _downgraded("end_to_end", answer)


def _downgraded(demanded: str, answer: Answer) -> LatticeError:
    got = answer.headers.get(SEALING_HEADER)
    shown = got if got in ("gateway", "end_to_end") else "no sealing"
    return LatticeError(
        "sealing_mode_unavailable",
        f"`{demanded}` was demanded and the gateway answered with {shown}; the answer was not used.",
        request_id=answer.request_id,
    )
