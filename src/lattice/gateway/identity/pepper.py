"""The pepper: 32 random bytes beside the database, so that a stolen database alone cannot be searched for keys."""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from lattice.core.errors import LatticeError
from lattice.gateway.keyfile import read_or_create

PEPPER_BYTES = 32


class Pepper:
    """Hashes secrets for storage. Its repr shows nothing."""

    __slots__ = ("_key", "mac_key")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != PEPPER_BYTES:
            raise LatticeError("config_invalid", f"The pepper must be {PEPPER_BYTES} bytes.")
        self._key = raw
        #: A separate key for the MACs of request bodies and idempotency keys.
        self.mac_key = hmac.digest(raw, b"lattice idempotency macs v1", "sha256")

    def derive(self, label: bytes) -> bytes:
        """A key of its own for each purpose."""
        return hmac.digest(self._key, label, "sha256")

    def hash(self, secret: str) -> bytes:
        """HMAC-SHA256 of a secret: all that is ever stored of it."""
        return hmac.digest(self._key, secret.encode(), "sha256")


def load_pepper(path: Path, *, create: bool = True) -> Pepper:
    """Read the pepper file, making it on the first start; see `read_or_create` for `create`."""
    return Pepper(read_or_create(path, lambda: os.urandom(PEPPER_BYTES), create=create))
