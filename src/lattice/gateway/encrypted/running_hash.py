"""The hash of an upload as its parts arrive in order, so that a complete one need not be read again.

Only a shortcut: what came in another order, or before a restart, is read and hashed at the end.
"""

from __future__ import annotations

import hashlib
from typing import TypeAlias

from lattice.gateway.encrypted.upload_rows import UploadRow

Hash: TypeAlias = "hashlib._Hash"

MAX_UPLOADS = 1024


class RunningHashes:
    """By upload: how many parts were hashed, and their hash."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Hash]] = {}

    def before(self, row: UploadRow, part: int) -> Hash | None:
        """A hash of all parts before this one, to be continued; None where they are not all known."""
        parts, digest = self._known.get(row.id, (0, hashlib.sha256()))
        if part < parts:
            self.forget(row.id)  # it is written again, and what was hashed is not what is there
        return digest.copy() if part == parts else None

    def after(self, row: UploadRow, part: int, digest: Hash | None) -> None:
        """The part has arrived whole and is marked; it was hashed where there is a digest."""
        if digest is None:
            return
        while len(self._known) >= MAX_UPLOADS and row.id not in self._known:
            del self._known[next(iter(self._known))]
        self._known[row.id] = (part + 1, digest)

    def whole(self, row: UploadRow) -> bytes | None:
        """The hash of the whole upload."""
        parts, digest = self._known.get(row.id, (0, None))
        return digest.digest() if digest is not None and parts == row.parts else None

    def forget(self, upload_id: str) -> None:
        """It has ended."""
        self._known.pop(upload_id, None)
