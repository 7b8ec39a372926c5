"""The gateway's own sender key: mode `gateway`, in which it seals on behalf of an unmodified OpenAI client and forgets."""

from __future__ import annotations

from pathlib import Path

from lattice.core.files import read_or_create
from lattice.sealing.identity import IdentityKey


def load_sender_key(path: Path) -> IdentityKey:
    """The gateway's sender key; made on first start in a file only its owner can read."""
    return IdentityKey.from_bytes(read_or_create(path, lambda: IdentityKey.generate().to_bytes()))
