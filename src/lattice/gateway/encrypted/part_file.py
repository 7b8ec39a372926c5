"""A large file that is written piece by piece past the page cache, where the file system allows that.

Hundreds of megabytes that nobody reads soon would drive what is read often out of memory, and filling fresh pages costs
more than sending the bytes to the disk. Whatever cannot go past the cache (a last, odd piece; a file system that does
not know how) goes through it.
"""

from __future__ import annotations

import errno
import mmap
import os
from pathlib import Path
from typing import Any

ALIGNMENT = 4096
_DIRECT = getattr(os, "O_DIRECT", 0)


class PartFile:
    """An open file. Its methods block, so they belong into a thread."""

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC
        self._cached = os.open(path, flags, 0o600)
        self._direct: int | None = None
        if _DIRECT:
            try:
                self._direct = os.open(path, flags | _DIRECT)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    self.close()
                    raise

    def write(self, data: memoryview, offset: int, digest: Any = None) -> None:
        """Write all of it, and hash it on the way where there is a digest."""
        if digest is not None:
            digest.update(data)
        while data:
            written = self._write(data, offset)
            data, offset = data[written:], offset + written

    def close(self) -> None:
        """Let go of it."""
        os.close(self._cached)
        if self._direct is not None:
            os.close(self._direct)

    def _write(self, data: memoryview, offset: int) -> int:
        whole = len(data) - len(data) % ALIGNMENT
        if self._direct is not None and whole and offset % ALIGNMENT == 0:
            try:
                return os.pwrite(self._direct, data[:whole], offset)
            except OSError as error:
                if error.errno != errno.EINVAL:  # it opened so, and does not write so
                    raise
                os.close(self._direct)
                self._direct = None
        return os.pwrite(self._cached, data, offset)


def aligned(size: int) -> memoryview:
    """A buffer that may be written past the page cache."""
    return memoryview(mmap.mmap(-1, size))
