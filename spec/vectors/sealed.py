"""Vectors of sealed requests: envelopes and how bodies are cut into frames."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from spec.vectors.fixed import (
    BODY,
    MODEL,
    NOW_MS,
    RUNTIME,
    RUNTIME_KEY,
    SENDER_KEY,
    STRANGER_KEY,
    WORK_ID,
    Json,
    edit,
    fixed,
    flip,
    issued,
)

from lattice.core.errors import LatticeError
from lattice.core.ids import b64url, unb64url
from lattice.sealing.cipher import REQUEST_LABEL, derive_key
from lattice.sealing.envelope import SEALED_WORK_LABEL, Envelope
from lattice.sealing.header import Header, encode_header
from lattice.sealing.identity import IdentityKey
from lattice.sealing.key_config import KeyConfig, verify_key_config
from lattice.sealing.request import FRAME_BYTES, seal_body
from lattice.sealing.suites import Suite, wrap_work_key


def make_header(suite: Suite, **changes: Any) -> Header:
    """The fixed header of a suite."""
    config: KeyConfig = verify_key_config(issued(suite)[0], RUNTIME_KEY.public, RUNTIME)
    header = Header(
        suite=suite,
        runtime=RUNTIME,
        key_id=config.key_id,
        work_id=WORK_ID,
        sender=SENDER_KEY.public.text,
        issued_at_ms=NOW_MS,
        expires_at_ms=NOW_MS + 600_000,
        model=MODEL,
        max_output_tokens=256,
        stream=True,
        task="chat",
    )
    return msgspec.structs.replace(header, **changes)


class Encapsulations:
    """HPKE output by name, kept from the stored file where it still opens."""

    def __init__(self, stored: dict[str, str]) -> None:
        self._stored = stored
        self.used: dict[str, str] = {}

    def wrap(self, name: str, suite: Suite, work_key: bytes, header: bytes) -> tuple[bytes, bytes]:
        """`(enc, wrapped key)` to the fixed key pair of the suite."""
        pair = issued(suite)[1]
        sealed = unb64url(self.used.get(name) or self._stored.get(name, ""))
        enc, wrapped = sealed[: suite.enc_bytes], sealed[suite.enc_bytes :]
        try:
            fits = pair.unwrap(enc, wrapped, header) == work_key
        except LatticeError:
            fits = False
        if not fits:
            enc, wrapped = wrap_work_key(suite, b64url(pair.public), work_key, header)
        self.used[name] = b64url(enc + wrapped)
        return enc, wrapped


def sign_envelope(
    header: bytes, enc: bytes, wrapped: bytes, frames: tuple[bytes, ...], key: IdentityKey = SENDER_KEY
) -> Envelope:
    """A correctly signed envelope of any content."""
    unsigned = Envelope(header, enc, wrapped, frames, b"")
    return Envelope(header, enc, wrapped, frames, key.sign(SEALED_WORK_LABEL, unsigned.envelope_hash))


def make_envelope(capsules: Encapsulations, name: str, suite: Suite, header: bytes, body: bytes) -> Envelope:
    """Seal with fixed keys."""
    work_key = fixed(f"work key {name}")
    enc, wrapped = capsules.wrap(name, suite, work_key, header)
    return sign_envelope(header, enc, wrapped, seal_body(work_key, hashlib.sha256(header).digest(), body))


def envelopes(capsules: Encapsulations) -> Json:
    """Envelopes that open, and some that must be refused at a stated step."""
    positive = []
    for suite in Suite:
        for name, body in (("body", BODY), ("empty body", b"")):
            label = f"{suite.value} {name}"
            header = encode_header(make_header(suite))
            envelope = make_envelope(capsules, label, suite, header, body)
            work_key = fixed(f"work key {label}")
            positive.append(
                {
                    "name": label,
                    "suite": suite.value,
                    "header": header.decode(),
                    "header_hash": b64url(envelope.header_hash),
                    "enc": b64url(envelope.enc),
                    "wrapped_key": b64url(envelope.wrapped_key),
                    "work_key": b64url(work_key),
                    "request_key": b64url(derive_key(work_key, envelope.header_hash, REQUEST_LABEL)),
                    "frames": [b64url(frame) for frame in envelope.frames],
                    "envelope_hash": b64url(envelope.envelope_hash),
                    "signature": b64url(envelope.signature),
                    "encoded": b64url(envelope.encode()),
                    "body": b64url(body),
                }
            )
    keys = [{"suite": suite.value, "seed": b64url(issued(suite)[1].to_bytes()[2:])} for suite in Suite]
    return {
        "now_ms": NOW_MS,
        "runtime": RUNTIME,
        "sender": SENDER_KEY.public.text,
        "work_keys": keys,
        "positive": positive,
        "negative": refused_envelopes(capsules),
        "encapsulations": capsules.used,
    }


def refused_envelopes(capsules: Encapsulations) -> list[Json]:
    """By step: `decode` reads bytes, `check` judges sender and time, `open` decrypts."""
    suite = Suite.X25519
    header = encode_header(make_header(suite))
    good = make_envelope(capsules, f"{suite.value} body", suite, header, BODY)
    other = make_envelope(capsules, "another body", suite, header, b"another body")
    enc, wrapped, frames, encoded = good.enc, good.wrapped_key, good.frames, good.encode()

    def headed(**changes: Any) -> bytes:
        return sign_envelope(edit(header, **changes), enc, wrapped, frames).encode()

    def framed(*these: bytes) -> bytes:
        return sign_envelope(header, enc, wrapped, these).encode()

    later = encode_header(make_header(suite, work_id="work_another"))
    rows: list[tuple[str, str, bytes, str, dict[str, Any]]] = [
        ("trailing byte", "decode", encoded + b"\0", "envelope_invalid", {}),
        ("cut short", "decode", encoded[:-1], "envelope_invalid", {}),
        ("empty", "decode", b"", "envelope_invalid", {}),
        ("giant header length", "decode", b"\xff\xff\xff\xff" + encoded[4:], "envelope_invalid", {}),
        ("no frames", "decode", framed(), "envelope_invalid", {}),
        ("two short frames", "decode", framed(*frames, *frames), "envelope_invalid", {}),
        ("frame shorter than a tag", "decode", framed(b"short"), "envelope_invalid", {}),
        ("version 2", "decode", headed(version=2), "envelope_invalid", {}),
        ("unknown member", "decode", headed(extra=True), "envelope_invalid", {}),
        ("sender missing", "decode", headed(sender=...), "envelope_invalid", {}),
        ("header of the other suite", "decode", headed(suite=Suite.XWING.value), "envelope_invalid", {}),
        ("ends before it begins", "decode", headed(expires_at_ms=NOW_MS), "envelope_invalid", {}),
        ("lives eight days", "decode", headed(expires_at_ms=NOW_MS + 8 * 86_400_000), "envelope_invalid", {}),
        ("signature altered", "check", flip(encoded, -1), "envelope_invalid", {}),
        ("frame altered", "check", flip(encoded, -70), "envelope_invalid", {}),
        (
            "signed by a stranger",
            "check",
            sign_envelope(header, enc, wrapped, frames, STRANGER_KEY).encode(),
            "envelope_invalid",
            {},
        ),
        ("sender not on the allow-list", "check", encoded, "sender_not_allowed", {"allowed": STRANGER_KEY.public.text}),
        ("expired", "check", encoded, "envelope_expired", {"now_ms": NOW_MS + 600_000}),
        ("dated in the future", "check", encoded, "envelope_expired", {"now_ms": NOW_MS - 300_001}),
        ("for another runtime", "open", encoded, "envelope_invalid", {"runtime": "lat_other"}),
        ("other key id", "open", headed(key_id="0123456789abcdef"), "work_key_expired", {}),
        (
            "other header, same body",
            "open",
            sign_envelope(later, enc, wrapped, frames).encode(),
            "envelope_invalid",
            {},
        ),
        ("same header, other body", "open", framed(*other.frames), "envelope_invalid", {}),
        (
            "enc and wrapped key of other work",
            "open",
            sign_envelope(header, other.enc, other.wrapped_key, frames).encode(),
            "envelope_invalid",
            {},
        ),
        (
            "enc is a point of small order",
            "open",
            sign_envelope(header, bytes(32), wrapped, frames).encode(),
            "envelope_invalid",
            {},
        ),
        ("frame altered and signed again", "open", framed(flip(frames[0], 3)), "envelope_invalid", {}),
    ]
    return [
        {"name": name, "step": step, "encoded": b64url(data), "error": error, **given}
        for name, step, data, error, given in rows
    ]


def request_frames() -> Json:
    """How bodies are cut. Long ones are given by rule (byte i = i mod 251), their frames by length and SHA-256."""
    work_key, header_hash = fixed("request frames work key"), fixed("request frames header hash")
    cases = []
    for size in (0, 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES + 7):
        body = bytes(i % 251 for i in range(251)) * (size // 251 + 1)
        frames = seal_body(work_key, header_hash, body[:size])
        sums = [{"length": len(f), "sha256": b64url(hashlib.sha256(f).digest())} for f in frames]
        cases.append({"body_length": size, "frames": sums})
    return {"work_key": b64url(work_key), "header_hash": b64url(header_hash), "cases": cases}
