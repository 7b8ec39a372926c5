"""The envelope: sealed work as it travels from sender to runtime, with its hash, its signature and its checks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cached_property

import msgspec

from lattice.core.errors import LatticeError
from lattice.sealing.frames import ReplyOpener, ReplySealer
from lattice.sealing.header import MAX_HEADER_BYTES, Header, Task, decode_header, encode_header
from lattice.sealing.identity import SIGNATURE_BYTES, IdentityKey, PublicIdentity
from lattice.sealing.key_config import MAX_CLOCK_SKEW_MS, KeyConfig, require_current
from lattice.sealing.request import FRAME_BYTES, MAX_FRAME_BYTES, open_body, seal_body
from lattice.sealing.secret import Secret
from lattice.sealing.suites import MAX_ENC_BYTES, WORK_KEY_BYTES, WRAPPED_KEY_BYTES, WorkKeyPair, wrap_work_key
from lattice.sealing.wire import FieldReader, pack

SEALED_WORK_LABEL = b"lattice sealed work v1"
DEFAULT_LIFE_MS = 600_000
MAX_ENVELOPE_BYTES = 16 * 1024 * 1024
_MIN_FRAME_BYTES = MAX_FRAME_BYTES - FRAME_BYTES


class Envelope(msgspec.Struct, frozen=True, dict=True):
    """Sealed work. `header` is kept as the exact bytes that were sealed and is never encoded again."""

    header: bytes
    enc: bytes
    wrapped_key: bytes
    frames: tuple[bytes, ...]
    signature: bytes

    @cached_property
    def _signed_part(self) -> bytes:
        count = len(self.frames).to_bytes(4, "big")
        return pack(self.header, self.enc, self.wrapped_key) + count + pack(*self.frames)

    @cached_property
    def envelope_hash(self) -> bytes:
        """SHA-256 over everything but the signature, in its encoded form: the work's identity everywhere."""
        return hashlib.sha256(self._signed_part).digest()

    @cached_property
    def parsed(self) -> Header:
        """The header, read and judged; `envelope_invalid` if it makes no sense."""
        return decode_header(self.header)

    @cached_property
    def header_hash(self) -> bytes:
        """SHA-256 of the header's bytes, which every frame authenticates."""
        return hashlib.sha256(self.header).digest()

    def encode(self) -> bytes:
        """The bytes to send. A retry sends the same ones."""
        return self._signed_part + pack(self.signature)

    @classmethod
    def decode(cls, data: bytes, max_bytes: int = MAX_ENVELOPE_BYTES) -> Envelope:
        """Read `encode`'s form strictly: `body_too_large` over the limit, `envelope_invalid` for anything malformed.

        Checks no signature: see `check_sender`.
        """
        if len(data) > max_bytes:
            raise LatticeError("body_too_large", f"Sealed work has at most {max_bytes} bytes here.")
        reader = FieldReader(data, "sealed work")
        header = reader.field(MAX_HEADER_BYTES, at_least=2)
        enc = reader.field(MAX_ENC_BYTES)
        wrapped_key = reader.field(WRAPPED_KEY_BYTES, at_least=WRAPPED_KEY_BYTES)
        frames = _read_frames(reader, len(data))
        signed = reader.offset
        signature = reader.field(SIGNATURE_BYTES, at_least=SIGNATURE_BYTES)
        reader.finish()
        envelope = cls(header, enc, wrapped_key, frames, signature)
        envelope.__dict__["_signed_part"] = data[:signed]
        if len(enc) != envelope.parsed.suite.enc_bytes:
            raise reader.fail("has an encapsulated key of a forbidden length")
        return envelope

    def __repr__(self) -> str:
        return f"Envelope({self.envelope_hash.hex()[:16]})"


def _read_frames(reader: FieldReader, size: int) -> tuple[bytes, ...]:
    """Full frames and one last one, so that a body has one form and a small message can't claim a million frames."""
    count = reader.number()
    if not 1 <= count <= size // MAX_FRAME_BYTES + 1:
        raise reader.fail("has a forbidden number of frames")
    full = [reader.field(MAX_FRAME_BYTES, at_least=MAX_FRAME_BYTES) for _ in range(count - 1)]
    least = _MIN_FRAME_BYTES if count == 1 else _MIN_FRAME_BYTES + 1
    return (*full, reader.field(MAX_FRAME_BYTES, at_least=least))


class SealedRequest(Secret):
    """What the sender keeps while it waits: the envelope, to send again unchanged, and the key to open replies."""

    __slots__ = ("_work_key", "envelope")

    def __init__(self, envelope: Envelope, work_key: bytes) -> None:
        self.envelope = envelope
        self._work_key = work_key

    def reply_opener(self, attempt: int | None = None) -> ReplyOpener:
        """A fresh opener; given an `attempt`, it refuses every other one."""
        return ReplyOpener(self._work_key, self.envelope.header_hash, attempt)


class OpenedRequest(Secret):
    """What the runtime gets: header and body in the clear, and the means to answer."""

    __slots__ = ("_header_hash", "_work_key", "body", "header")

    def __init__(self, header: Header, body: bytes, work_key: bytes, header_hash: bytes) -> None:
        self.header = header
        self.body = body
        self._work_key = work_key
        self._header_hash = header_hash

    def reply_sealer(self, attempt: int, *, salt: bytes | None = None) -> ReplySealer:
        """A sealer for one attempt. `salt` (32 bytes) is for test vectors and must never repeat."""
        return ReplySealer(self._work_key, self._header_hash, attempt, salt)


def seal_request(
    *,
    config: KeyConfig,
    sender: IdentityKey,
    work_id: str,
    model: str,
    max_output_tokens: int,
    stream: bool,
    task: Task,
    body: bytes,
    now_ms: int,
    life_ms: int = DEFAULT_LIFE_MS,
    minimum_trust: int = 0,
    work_key: bytes | None = None,
) -> tuple[Envelope, SealedRequest]:
    """Seal a request body to a verified key config, or raise `work_key_expired` if the config has run out.

    `work_key` (32 bytes) is for test vectors: a work key that seals twice gives both bodies away.
    """
    require_current(config, now_ms)
    header = Header(
        suite=config.suite,
        runtime=config.runtime,
        key_id=config.key_id,
        work_id=work_id,
        sender=sender.public.text,
        issued_at_ms=now_ms,
        expires_at_ms=now_ms + life_ms,
        model=model,
        max_output_tokens=max_output_tokens,
        stream=stream,
        task=task,
        minimum_trust=minimum_trust,
    )
    envelope, key = _seal(encode_header(header), config, sender, body, work_key)
    return envelope, SealedRequest(envelope, key)


def _seal(
    header: bytes, config: KeyConfig, sender: IdentityKey, body: bytes, work_key: bytes | None
) -> tuple[Envelope, bytes]:
    parsed = decode_header(header)  # what the other side would refuse is refused here, before anything is sealed
    key = os.urandom(WORK_KEY_BYTES) if work_key is None else work_key
    if len(key) != WORK_KEY_BYTES:
        raise ValueError("a work key has 32 bytes")
    enc, wrapped_key = wrap_work_key(config.suite, config.public_key, key, header)
    frames = seal_body(key, hashlib.sha256(header).digest(), body)
    unsigned = Envelope(header, enc, wrapped_key, frames, b"")
    signature = sender.sign(SEALED_WORK_LABEL, unsigned.envelope_hash)
    envelope = Envelope(header, enc, wrapped_key, frames, signature)
    envelope.__dict__.update(unsigned.__dict__, parsed=parsed)
    return envelope, key


def check_sender(envelope: Envelope, allowed: Callable[[PublicIdentity], bool], now_ms: int) -> Header:
    """The header, if its sender signed the envelope, is allowed, and the time is right. Opens nothing.

    Raises `envelope_invalid`, `sender_not_allowed` or `envelope_expired`, judged in that order.
    """
    header = envelope.parsed
    sender = PublicIdentity.from_text(header.sender)
    sender.verify(SEALED_WORK_LABEL, envelope.envelope_hash, envelope.signature)
    if not allowed(sender):
        raise LatticeError("sender_not_allowed", f"The sender key {sender.key_id} is not on the allow-list.")
    if now_ms >= header.expires_at_ms:
        raise LatticeError("envelope_expired")
    if header.issued_at_ms > now_ms + MAX_CLOCK_SKEW_MS:
        raise LatticeError("envelope_expired", "The sealed work is dated in the future.")
    return header


def open_request(envelope: Envelope, key_pair: WorkKeyPair, runtime: str) -> OpenedRequest:
    """Decrypt. Call `check_sender` first: this function does not ask who sent the work.

    Raises `work_key_expired` if it was sealed to another key pair, `envelope_invalid` if it does not open.
    """
    header = envelope.parsed
    if header.runtime != runtime:
        raise LatticeError("envelope_invalid", "The sealed work is for another runtime.")
    if header.key_id != key_pair.key_id or header.suite is not key_pair.suite:
        raise LatticeError("work_key_expired", f"The work was not sealed to the work key {key_pair.key_id}.")
    work_key = key_pair.unwrap(envelope.enc, envelope.wrapped_key, envelope.header)
    body = open_body(work_key, envelope.header_hash, envelope.frames)
    return OpenedRequest(header, body, work_key, envelope.header_hash)
