"""Small blobs that were stored a moment ago and will be asked for soon, in memory: bounded, and never the only copy."""

from __future__ import annotations

MAX_BYTES = 32 * 1024 * 1024


class Recent:
    """By SHA-256; the oldest go first."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._kept: dict[bytes, bytes] = {}

    def put(self, sha256: bytes, data: bytes) -> None:
        """Keep it for a while."""
        self.take(sha256)
        self._kept[sha256] = data
        self._bytes += len(data)
        while self._bytes > self._max_bytes:
            self.take(next(iter(self._kept)))

    def take(self, sha256: bytes) -> bytes | None:
        """The bytes, which are not kept any more; None where they are not there."""
        data = self._kept.pop(sha256, None)
        if data is not None:
            self._bytes -= len(data)
        return data
