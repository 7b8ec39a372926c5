"""The pepper: 32 random bytes beside the database, so that a stolen database alone cannot be searched for keys."""

from __future__ import annotations

import hmac
import os
import tempfile
from pathlib import Path

from lattice.core.errors import LatticeError

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

    def hash(self, secret: str) -> bytes:
        """HMAC-SHA256 of a secret: all that is ever stored of it."""
        return hmac.digest(self._key, secret.encode(), "sha256")


def load_pepper(path: Path, *, create: bool = True) -> Pepper:
    """Read the pepper file, making it on the first start; gateways that start together agree on one.

    With `create=False` (the database has keys already) a missing file is `config_invalid`: a new one would lock out
    everybody.
    """
    if not path.exists():
        if not create:
            raise LatticeError("config_invalid", f"The pepper file {path} is missing; restore it from the backup.")
        _create(path)
    if path.stat().st_mode & 0o077:
        raise LatticeError("config_invalid", f"The pepper file {path} can be read by others; run `chmod 600` on it.")
    return Pepper(path.read_bytes())


def _create(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".pepper-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(PEPPER_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)  # fails where another process was first, and never leaves half a file
        except FileExistsError:
            return
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        os.unlink(name)
