"""Key configs: the public work keys of a runtime, signed by its identity key, with a purpose and an end."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from lattice.core.clock import DAY_MS, HOUR_MS, MINUTE_MS
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url, unb64url
from lattice.sealing.identity import SIGNATURE_BYTES, IdentityKey, PublicIdentity
from lattice.sealing.suites import Suite, WorkKeyPair, work_key_id
from lattice.sealing.wire import FieldReader, decode_json, pack

KEY_CONFIG_LABEL = b"lattice key config v1"
INTERACTIVE_LIFE_MS = 24 * HOUR_MS
OVERLAP_MS = HOUR_MS
DURABLE_LIFE_MS = 7 * DAY_MS
MAX_CLOCK_SKEW_MS = 5 * MINUTE_MS
MAX_CONFIG_BYTES = 4096

Purpose = Literal["interactive", "durable"]
TimeMs = Annotated[int, Meta(ge=0, le=2**53 - 1)]
IdText = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]


class KeyConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to seal to. Senders use it from `not_before_ms` up to `not_after_ms`; the runtime holds the private half
    for longer (`destroy_at_ms`), so that work sealed in the last minute still opens."""

    version: Literal[1] = 1
    runtime: IdText
    key_id: IdText
    purpose: Purpose
    suite: Suite
    public_key: str
    not_before_ms: TimeMs
    not_after_ms: TimeMs

    @property
    def life_ms(self) -> int:
        """How long senders may use it."""
        return self.not_after_ms - self.not_before_ms

    @property
    def destroy_at_ms(self) -> int:
        """When the runtime destroys the private half: an hour later, or, for durable work, after the latest deadline
        that work sealed to it can have."""
        return self.not_after_ms + (OVERLAP_MS if self.purpose == "interactive" else DURABLE_LIFE_MS)


_decoder = msgspec.json.Decoder(KeyConfig)
_encoder = msgspec.json.Encoder()
_LIVES = {"interactive": INTERACTIVE_LIFE_MS, "durable": DURABLE_LIFE_MS}


class SignedKeyConfig(msgspec.Struct, frozen=True):
    """A key config as it travels: its exact JSON, which is what the signature covers, and the signature."""

    config: bytes
    signature: bytes

    def encode(self) -> bytes:
        """Two length-prefixed fields."""
        return pack(self.config, self.signature)

    @classmethod
    def decode(cls, data: bytes) -> SignedKeyConfig:
        """Read `encode`'s form strictly; checks no signature."""
        reader = FieldReader(data, "signed key configuration")
        config = reader.field(MAX_CONFIG_BYTES)
        signature = reader.field(SIGNATURE_BYTES, at_least=SIGNATURE_BYTES)
        reader.finish()
        return cls(config, signature)


def issue_key_config(
    identity: IdentityKey, runtime: str, purpose: Purpose, suite: Suite, now_ms: int, *, seed: bytes | None = None
) -> tuple[SignedKeyConfig, WorkKeyPair]:
    """Make a key pair and sign its config. `seed` (32 bytes) is for test vectors."""
    pair = WorkKeyPair(suite, seed) if seed is not None else WorkKeyPair.generate(suite)
    config = _encoder.encode(
        KeyConfig(
            runtime=runtime,
            key_id=pair.key_id,
            purpose=purpose,
            suite=suite,
            public_key=b64url(pair.public),
            not_before_ms=now_ms,
            not_after_ms=now_ms + _LIVES[purpose],
        )
    )
    return SignedKeyConfig(config, identity.sign(KEY_CONFIG_LABEL, config)), pair


def verify_key_config(signed: SignedKeyConfig, identity: PublicIdentity, runtime: str) -> KeyConfig:
    """The config, if `identity` signed it for `runtime` and it makes sense; `envelope_invalid` otherwise.

    Says nothing about time: ask `require_current` each time the config is used.
    """
    identity.verify(KEY_CONFIG_LABEL, signed.config, signed.signature)
    config = decode_json(_decoder, signed.config, "key configuration")
    if config.runtime != runtime:
        raise LatticeError("envelope_invalid", "The key configuration is for another runtime.")
    if not 0 < config.life_ms <= _LIVES[config.purpose]:
        raise LatticeError("envelope_invalid", "The key configuration lives longer than its purpose allows.")
    try:
        public = unb64url(config.public_key)
    except ValueError:
        public = b""
    if len(public) != config.suite.public_bytes or work_key_id(public) != config.key_id:
        raise LatticeError("envelope_invalid", "The key configuration's public key does not fit its id and suite.")
    return config


def require_current(config: KeyConfig, now_ms: int) -> None:
    """Raise `work_key_expired` unless the config may be sealed to now. A clock may be five minutes slow."""
    if now_ms < config.not_before_ms - MAX_CLOCK_SKEW_MS:
        raise LatticeError("work_key_expired", f"The work key {config.key_id} is not valid yet; check the clock.")
    if now_ms >= config.not_after_ms:
        raise LatticeError("work_key_expired", f"The work key {config.key_id} has expired.")
