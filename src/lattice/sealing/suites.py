"""The two HPKE suites and the work key pairs that envelopes are sealed to.

Both wrap a 32-byte work key with single-shot HPKE (RFC 9180, base mode) under HKDF-SHA256 and AES-256-GCM. They differ
in the KEM: X-Wing (ML-KEM-768 with X25519, safe against a later quantum computer) or X25519 alone, where the installed
OpenSSL has no ML-KEM.
"""

from __future__ import annotations

import hashlib
import os
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from lattice.core.errors import LatticeError
from lattice.core.ids import unb64url
from lattice.sealing.secret import Secret

SEED_BYTES = 32
WORK_KEY_BYTES = 32
WRAPPED_KEY_BYTES = WORK_KEY_BYTES + 16
MAX_ENC_BYTES = 1120
_MLKEM_PUBLIC_BYTES = 1184


class Suite(StrEnum):
    """A suite's name in key configs and headers."""

    XWING = "xwing-hkdf-sha256-aes256gcm"
    X25519 = "x25519-hkdf-sha256-aes256gcm"

    @property
    def kem_id(self) -> int:
        """The KEM's number in the HPKE registry."""
        return 0x647A if self is Suite.XWING else 0x0020

    @property
    def enc_bytes(self) -> int:
        """Length of the encapsulated key."""
        return 1120 if self is Suite.XWING else 32

    @property
    def public_bytes(self) -> int:
        """Length of a public key."""
        return 1216 if self is Suite.XWING else 32


@cache
def available_suites() -> tuple[Suite, ...]:
    """What the installed `cryptography` can do, best first."""
    try:
        mlkem.MLKEM768PrivateKey.from_seed_bytes(bytes(64))
        _hpke(Suite.XWING)
    except (UnsupportedAlgorithm, AttributeError):
        return (Suite.X25519,)
    return (Suite.XWING, Suite.X25519)


def preferred_suite() -> Suite:
    """The strongest available suite."""
    return available_suites()[0]


@cache
def _hpke(suite: Suite) -> hpke.Suite:
    kem = hpke.KEM.MLKEM768_X25519 if suite is Suite.XWING else hpke.KEM.X25519
    return hpke.Suite(kem, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)


def _require_available(suite: Suite) -> None:
    if suite not in available_suites():
        raise LatticeError(
            "sealing_mode_unavailable",
            "The suite needs ML-KEM-768, which this machine's `cryptography` build lacks.",
        )


@lru_cache(maxsize=1024)
def _public_key(suite: Suite, text: str) -> Any:
    _require_available(suite)
    try:
        raw = unb64url(text)
        if len(raw) != suite.public_bytes:
            raise ValueError
        if suite is Suite.X25519:
            return X25519PublicKey.from_public_bytes(raw)
        return hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(raw[:_MLKEM_PUBLIC_BYTES]),
            X25519PublicKey.from_public_bytes(raw[_MLKEM_PUBLIC_BYTES:]),
        )
    except ValueError:
        raise LatticeError("envelope_invalid", "The key configuration's public key is not valid.") from None


def wrap_work_key(suite: Suite, public_key: str, work_key: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Encapsulate to a public key (unpadded base64url) and encrypt the work key: `(enc, wrapped key)`."""
    try:
        sealed = _hpke(suite).encrypt(work_key, _public_key(suite, public_key), info=info)
    except ValueError:  # a point of small order, which X25519 refuses
        raise LatticeError("envelope_invalid", "The key configuration's public key is not valid.") from None
    return sealed[: suite.enc_bytes], sealed[suite.enc_bytes :]


class WorkKeyPair(Secret):
    """The private half of a key config: a 32-byte seed in either suite."""

    __slots__ = ("_private", "_seed", "key_id", "public", "suite")

    suite: Suite
    public: bytes
    key_id: str

    def __init__(self, suite: Suite, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError("a work key pair's seed has 32 bytes")
        _require_available(suite)
        self.suite = suite
        self._seed = bytes(seed)
        self._private, self.public = _expand(suite, self._seed)
        self.key_id = work_key_id(self.public)

    @classmethod
    def generate(cls, suite: Suite) -> WorkKeyPair:
        """A new pair from the operating system's randomness."""
        return cls(suite, os.urandom(SEED_BYTES))

    @classmethod
    def from_bytes(cls, data: bytes) -> WorkKeyPair:
        """Read what `to_bytes` wrote; ValueError for anything else."""
        for suite in Suite:
            if len(data) == 2 + SEED_BYTES and int.from_bytes(data[:2], "big") == suite.kem_id:
                return cls(suite, data[2:])
        raise ValueError("not a work key pair")

    def to_bytes(self) -> bytes:
        """The KEM's number (u16) and the seed, for the key store only."""
        return self.suite.kem_id.to_bytes(2, "big") + self._seed

    def unwrap(self, enc: bytes, wrapped_key: bytes, info: bytes) -> bytes:
        """The work key, or `envelope_invalid`: wrong key, wrong header, or altered on the way."""
        if len(enc) == self.suite.enc_bytes and len(wrapped_key) == WRAPPED_KEY_BYTES:
            try:
                return _hpke(self.suite).decrypt(enc + wrapped_key, self._private, info=info)
            except (InvalidTag, ValueError):
                pass
        raise LatticeError("envelope_invalid", "The work key cannot be unwrapped.")

    def __repr__(self) -> str:
        return f"WorkKeyPair({self.suite.value}, {self.key_id})"


def work_key_id(public: bytes) -> str:
    """The id of a work key: 16 hex digits of the SHA-256 of its public bytes."""
    return hashlib.sha256(public).hexdigest()[:16]


def _expand(suite: Suite, seed: bytes) -> tuple[Any, bytes]:
    """The private key object and the raw public key. X-Wing's own seed expansion: SHAKE-256 to 64 + 32 bytes."""
    if suite is Suite.X25519:
        alone = X25519PrivateKey.from_private_bytes(seed)
        return alone, alone.public_key().public_bytes_raw()
    expanded = hashlib.shake_256(seed).digest(96)
    lattice_part = mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    curve_part = X25519PrivateKey.from_private_bytes(expanded[64:])
    public = lattice_part.public_key().public_bytes_raw() + curve_part.public_key().public_bytes_raw()
    return hpke.MLKEM768X25519PrivateKey(lattice_part, curve_part), public
