"""Sealing a request to one machine and opening its reply: no I/O, and nothing unverified gets out."""

from __future__ import annotations

from collections import deque
from typing import Literal

import msgspec

from lattice.client.faults import decode_json, reported_error
from lattice.client.records import PersonalRuntime
from lattice.client.results import VerifiedReceipt
from lattice.core.chat import RequestShape
from lattice.core.errors import LatticeError
from lattice.sealing.envelope import SealedRequest, seal_request
from lattice.sealing.frames import Trailer
from lattice.sealing.identity import IdentityKey, PublicIdentity
from lattice.sealing.key_config import KeyConfig, SignedKeyConfig, require_current, verify_key_config
from lattice.sealing.receipt import SignedReceipt, verify_receipt
from lattice.sealing.stream import Record, RecordReader, RecordType, decode_frame

Task = Literal["chat", "embeddings"]


class SealedCall(msgspec.Struct, frozen=True):
    """Sealed work as it was sent, and all that its reply is checked against. A retry sends `content` unchanged."""

    runtime: str
    work_id: str
    identity: PublicIdentity
    request: SealedRequest
    content: bytes

    def __repr__(self) -> str:
        return f"SealedCall(work_id={self.work_id!r}, runtime={self.runtime!r})"


def current_config(record: PersonalRuntime, identity: PublicIdentity, now_ms: int) -> KeyConfig:
    """The machine's work key if the trusted identity signed it and it is in force; raises `work_key_expired`."""
    return _checked(record.signed_key_config(), identity, record.id, now_ms)


def renewed_config(signed: SignedKeyConfig, identity: PublicIdentity, runtime: str, now_ms: int) -> KeyConfig:
    """The work key of a `work_key_expired` answer. One that the pinned identity did not sign is never used."""
    try:
        return _checked(signed, identity, runtime, now_ms)
    except LatticeError as error:
        if error.code != "envelope_invalid":
            raise
        raise LatticeError(
            "runtime_identity_changed", f"The new work key of {runtime} is not signed by the pinned identity key."
        ) from None


def seal_call(
    *,
    config: KeyConfig,
    identity: PublicIdentity,
    sender: IdentityKey,
    work_id: str,
    task: Task,
    shape: RequestShape,
    max_output_tokens: int,
    body: bytes,
    now_ms: int,
) -> SealedCall:
    """Seal a request body, whose bytes stay as they are."""
    envelope, request = seal_request(
        config=config,
        sender=sender,
        work_id=work_id,
        model=shape.model,
        max_output_tokens=max_output_tokens,
        stream=bool(shape.stream) and task == "chat",
        task=task,
        body=body,
        now_ms=now_ms,
    )
    return SealedCall(config.runtime, work_id, identity, request, envelope.encode())


class ReplyReader:
    """Opens a reply as its bytes arrive: `push` bytes, `pull` payloads, `finish` at the end of the stream.

    Only after `finish` has returned is the reply known to be whole: every frame in order, the last one final, and a
    receipt that the pinned identity signed over exactly this work, these frames and this usage.
    """

    def __init__(self, call: SealedCall) -> None:
        self._call = call
        self._opener = call.request.reply_opener()
        self._records = RecordReader()
        self._waiting: deque[Record] = deque()
        self._ready: deque[bytes] = deque()
        self._broken: LatticeError | None = None
        self.trailer: Trailer | None = None
        self.receipt: VerifiedReceipt | None = None

    def push(self, data: bytes) -> None:
        """Take bytes from the gateway. A malformed record is reported by `pull`, after what came before it."""
        try:
            self._waiting.extend(self._records.feed(data))
        except LatticeError as error:
            self._broken = error

    def pull(self) -> bytes | None:
        """The next payload, or None until more bytes arrive. Raises `reply_invalid`, `receipt_invalid` or the error
        that the machine or the gateway reported."""
        if self._ready:
            return self._ready.popleft()
        while self._waiting:
            payload = self._take(self._waiting.popleft())
            if payload is not None:
                return payload
        if self._broken is not None:
            raise self._broken
        return None

    @property
    def started(self) -> bool:
        """Whether the first payload is there (it stays to be pulled). Raises what `pull` raises."""
        if not self._ready and (payload := self.pull()) is not None:
            self._ready.append(payload)
        return bool(self._ready)

    @property
    def refused(self) -> bool:
        """Whether the machine's engine answered with an error status instead of an answer."""
        return self.trailer is not None and self.trailer.status >= 400

    def finish(self) -> VerifiedReceipt:
        """The stream has ended: return the receipt, or raise because something is missing."""
        self._opener.require_finished()
        if self.receipt is None:
            raise LatticeError("receipt_invalid", "The reply ended without a receipt.")
        if self._records.pending:
            raise LatticeError("reply_invalid", "The reply was cut off inside a record.")
        return self.receipt

    def _take(self, record: Record) -> bytes | None:
        if record.type is RecordType.KEEPALIVE:
            return None
        if record.type is RecordType.ERROR:
            raise reported_error(502, decode_json(record.payload))
        if self.receipt is not None:
            raise LatticeError("reply_invalid", "Something came after the receipt.")
        if record.type is RecordType.FRAME:
            frame, tokens, final = decode_frame(record.payload)
            opened = self._opener.open(frame, tokens, final)
            self.trailer = opened.trailer
            return opened.payload
        self.receipt = self._verified(SignedReceipt.decode(record.payload))
        return None

    def _verified(self, signed: SignedReceipt) -> VerifiedReceipt:
        trailer = self.trailer
        if trailer is None:
            raise LatticeError("receipt_invalid", "The receipt came before the last frame.")
        receipt = verify_receipt(
            signed,
            self._call.identity,
            envelope_hash=self._call.request.envelope.envelope_hash,
            frames_hash=self._opener.ciphertext_hash,
            attempt=self._opener.attempt,
        )
        if (receipt.runtime, receipt.work_id) != (self._call.runtime, self._call.work_id):
            raise LatticeError("receipt_invalid", "The receipt names other work.")
        if (receipt.usage, receipt.status) != (trailer.usage, trailer.status):
            raise LatticeError("receipt_invalid", "The receipt's usage is not the one that was sealed to this app.")
        if receipt.model_digest != trailer.model_digest:
            raise LatticeError("receipt_invalid", "The receipt's model is not the one that was sealed to this app.")
        return VerifiedReceipt(receipt, signed)


def _checked(signed: SignedKeyConfig, identity: PublicIdentity, runtime: str, now_ms: int) -> KeyConfig:
    config = verify_key_config(signed, identity, runtime)
    require_current(config, now_ms)
    return config
