"""Files by their SHA-256: what a worker downloaded once and may need again. The oldest go when the folder is full."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from lattice.core.errors import LatticeError
from lattice.runtime.transport import RelayDown

PART = ".part-"
STALE_S = 3600.0
"""A download that has not grown for so long belongs to a process that is gone."""


class BlobWriter:
    """A download on its way to disk; written and hashed outside the event loop."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    async def write(self, piece: bytes) -> None:
        """Append."""
        await asyncio.to_thread(self._write, piece)

    def _write(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._file.write(piece)

    @property
    def sha256(self) -> str:
        """Of what was written."""
        return self._digest.hexdigest()


class BlobCache:
    """A folder of at most about `max_bytes`. Several processes may share it."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder, self._max_bytes = folder, max_bytes
        self._locks: dict[str, asyncio.Lock] = {}

    async def get(self, sha256: str, download: Callable[[str, BlobWriter], Awaitable[None]]) -> Path:
        """The file, downloaded at most once at a time. A cached file is trusted only if its hash still holds."""
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise LatticeError("blob_invalid", "The gateway named a blob by something that is not a SHA-256.")
        async with self._locks.setdefault(sha256, asyncio.Lock()):
            path = self._folder / sha256[:2] / sha256[2:]
            if await asyncio.to_thread(_holds, path, sha256):
                with suppress(OSError):
                    os.utime(path)
                return path
            await self._fetch(sha256, path, download)
            await asyncio.to_thread(self._evict, path)
            return path

    async def _fetch(self, sha256: str, path: Path, download: Callable[[str, BlobWriter], Awaitable[None]]) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=PART)
        try:
            with os.fdopen(handle, "wb") as file:
                writer = BlobWriter(file)
                await download(sha256, writer)
            if writer.sha256 != sha256:
                raise RelayDown("the gateway sent other bytes than those of the hash")
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise

    def _evict(self, keep: Path) -> None:
        found = []
        for path in self._folder.glob("??/*"):
            with suppress(OSError):
                status = path.stat()
                if path.name.startswith(PART):  # somebody's download, unless that somebody was killed
                    if status.st_mtime < time.time() - STALE_S:
                        path.unlink()
                    continue
                found.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self._max_bytes:
                return
            if path != keep:
                with suppress(OSError):
                    path.unlink()
                total -= size


def _holds(path: Path, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False
