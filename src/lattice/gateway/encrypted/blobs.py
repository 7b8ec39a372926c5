"""Large bytes by their SHA-256: artefacts, evaluation keys, ciphertexts. A folder now; the interface fits a bucket.

Nothing here holds more of a blob in memory than a few pieces, and a blob's name is a promise: it is there whole, with
exactly those bytes, or it is not there.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from lattice.core.errors import LatticeError
from lattice.gateway.encrypted.part_file import aligned
from lattice.gateway.encrypted.recent import Recent

PIECE_BYTES = 1024 * 1024
"""What is hashed and written, or read, at a time: large enough that threads and system calls cost nothing."""
SMALL_BYTES = 1024 * 1024
"""Up to this size a blob is written in one visit to a thread, and handed on from memory."""
THREADS = 4

T = TypeVar("T")


class Blob(NamedTuple):
    """A stored blob."""

    sha256: bytes
    bytes: int


class BlobStore(Protocol):
    """Where blobs are. Every method but `path` may take a while and blocks nobody."""

    async def put(self, pieces: AsyncIterator[bytes], limit: int) -> Blob:
        """Store a stream. Raises `body_too_large` past `limit`, `storage_full`."""
        ...

    async def put_any(self, pieces: AsyncIterator[bytes], size: int | None, limit: int) -> Blob:
        """The same; of a small stream whose size is known the bytes stay in memory for whoever takes them next."""
        ...

    def take_recent(self, sha256: bytes) -> bytes | None:
        """What `put_any` stored a moment ago, once; None where it has to be read."""
        ...

    async def adopt(self, path: Path, sha256: bytes, found: bytes | None = None) -> bool:
        """Take over a finished file of this very hash; False (and nothing kept) where it has another.

        `found` is its hash where that was computed as the file was written.
        """
        ...

    def stream(self, sha256: bytes, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` to `end`, in pieces. Raises `not_found` before the first."""
        ...

    async def size(self, sha256: bytes) -> int | None:
        """How many bytes it has; None where there is no such blob."""
        ...

    def path(self, sha256: bytes) -> Path:
        """A file of this machine that holds it, to be read by a child process."""
        ...

    async def sweep(self, grace_seconds: float, unused: Callable[[list[bytes]], Awaitable[list[bytes]]]) -> int:
        """Delete what `unused` picks among the blobs older than the grace; returns how many."""
        ...


class FolderBlobs:
    """`BlobStore` in a folder, `ab/cdef…`, readable by the gateway's user alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._incoming = folder / "incoming"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # `parents` would leave it open to others
        self._incoming.mkdir(exist_ok=True, mode=0o700)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="lattice-blobs")
        # Between a sweep's last look at a blob and its end nobody may begin to rely on it.
        self._naming = threading.Lock()
        self._durable: set[Path] = set()
        """Folders whose own names are known to be on disk."""
        self._recent = Recent()
        for left in self._incoming.iterdir():  # of a process that was killed
            left.unlink()

    async def run(self, fn: Callable[..., T], *args: object) -> T:
        """Run file work in this store's threads; a full disk is `storage_full`."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, fn, *args)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise LatticeError("storage_full") from None
            raise

    async def put(self, pieces: AsyncIterator[bytes], limit: int) -> Blob:
        """Store a stream. Raises `body_too_large` past `limit`, `storage_full`."""
        path = self._incoming / secrets.token_hex(16)
        digest, size = hashlib.sha256(), 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            async for piece in gathered(pieces):
                size += len(piece)
                if size > limit:
                    raise _too_large(limit)
                await self.run(_append, descriptor, digest, piece)
            await self.run(os.fsync, descriptor)
            await self.run(self._name, path, digest.digest())
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)
        return Blob(digest.digest(), size)

    async def put_any(self, pieces: AsyncIterator[bytes], size: int | None, limit: int) -> Blob:
        """The same; of a small stream whose size is known the bytes stay in memory for whoever takes them next."""
        if size is None or size > min(SMALL_BYTES, limit):
            return await self.put(pieces, limit)
        data = await _whole(pieces, limit)
        blob = await self.run(self._put_small, data)
        self._recent.put(blob.sha256, data)
        return blob

    def take_recent(self, sha256: bytes) -> bytes | None:
        """What `put_any` stored a moment ago, once; None where it has to be read."""
        return self._recent.take(sha256)

    async def adopt(self, path: Path, sha256: bytes, found: bytes | None = None) -> bool:
        """Take over a finished file of this very hash; False (and nothing kept) where it has another.

        `found` is its hash where that was computed as the file was written.
        """
        return await self.run(self._adopt, path, sha256, found)

    async def stream(self, sha256: bytes, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` to `end`, in pieces. Raises `not_found` before the first."""
        try:
            descriptor = await self.run(os.open, self.path(sha256), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise LatticeError("not_found", "The gateway does not have these bytes.") from None
        try:
            while end is None or start < end:
                wanted = PIECE_BYTES if end is None else min(PIECE_BYTES, end - start)
                piece = await self.run(os.pread, descriptor, wanted, start)
                if not piece:
                    return
                start += len(piece)
                yield piece
        finally:
            os.close(descriptor)

    async def size(self, sha256: bytes) -> int | None:
        """How many bytes it has; None where there is no such blob."""
        try:
            return (await self.run(os.stat, self.path(sha256))).st_size
        except FileNotFoundError:
            return None

    def path(self, sha256: bytes) -> Path:
        """A file of this machine that holds it, to be read by a child process."""
        name = sha256.hex()
        return self._folder / name[:2] / name[2:]

    async def sweep(self, grace_seconds: float, unused: Callable[[list[bytes]], Awaitable[list[bytes]]]) -> int:
        """Delete what `unused` picks among the blobs older than the grace; returns how many."""
        before, gone = time.time() - grace_seconds, 0
        for folder in await self.run(lambda: sorted(self._folder.glob("[0-9a-f][0-9a-f]"))):
            old = await self.run(_old, folder, before)
            if old:
                gone += await self.run(self._delete, await unused(old), before)
        return gone

    def close(self) -> None:
        """Wait for what the threads do."""
        self._threads.shutdown()

    def _put_small(self, data: bytes) -> Blob:
        """All of it in one visit to a thread: between threads a query lost more time than at the disk."""
        path = self._incoming / secrets.token_hex(16)
        digest = hashlib.sha256()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _append(descriptor, digest, memoryview(data))
            os.fsync(descriptor)
            self._name(path, digest.digest())
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)
        return Blob(digest.digest(), len(data))

    def _adopt(self, path: Path, sha256: bytes, found: bytes | None) -> bool:
        with open(path, "rb") as file:
            if (found or hashlib.file_digest(file, "sha256").digest()) != sha256:
                return False
            os.fsync(file.fileno())
        self._name(path, sha256)
        return True

    def _name(self, path: Path, sha256: bytes) -> None:
        """A second name for the same file: the first is left to its owner, so that a crash loses nothing."""
        target = self.path(sha256)
        target.parent.mkdir(mode=0o700, exist_ok=True)
        with self._naming:
            with suppress(FileExistsError):
                os.link(path, target)
            os.utime(target)  # younger than any sweep's grace, also where its last byte came long ago
        _sync(target.parent)
        if target.parent not in self._durable:  # its own name is on disk once, whoever made it
            _sync(self._folder)
            self._durable.add(target.parent)

    def _delete(self, hashes: list[bytes], before: float) -> int:
        gone = 0
        for path in map(self.path, hashes):
            with self._naming:
                if _older(path, before):  # nobody took it up meanwhile
                    path.unlink()
                    gone += 1
        return gone


async def _whole(pieces: AsyncIterator[bytes], limit: int) -> bytes:
    parts, size = [], 0
    async for piece in pieces:
        parts.append(piece)
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
    return b"".join(parts)


def _too_large(limit: int) -> LatticeError:
    return LatticeError("body_too_large", f"The body is larger than {limit} bytes.")


async def gathered(pieces: AsyncIterator[bytes], size: int = PIECE_BYTES) -> AsyncIterator[memoryview]:
    """The same bytes in pieces of `size`: a socket gives far smaller ones. Each is valid until the next but one is
    asked for, because they lie in two buffers by turns; fresh ones each time cost more than hashing them."""
    views, used = [aligned(size)], 0
    async for piece in pieces:
        rest = memoryview(piece)
        while rest:
            taken = min(size - used, len(rest))
            views[0][used : used + taken] = rest[:taken]
            rest, used = rest[taken:], used + taken
            if used == size:
                yield views[0]
                views, used = [views[1] if len(views) > 1 else aligned(size), views[0]], 0
    if used:
        yield views[0][:used]


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _append(descriptor: int, digest: hashlib._Hash, piece: memoryview) -> None:
    digest.update(piece)
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def _old(folder: Path, before: float) -> list[bytes]:
    return [bytes.fromhex(folder.name + path.name) for path in folder.iterdir() if _older(path, before)]


def _older(path: Path, before: float) -> bool:
    try:
        return path.stat().st_mtime < before
    except FileNotFoundError:
        return False
