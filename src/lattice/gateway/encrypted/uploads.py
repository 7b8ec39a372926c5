"""Resumable uploads: parts in any order into one sparse file, then one hash over everything before it gets its name."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from weakref import WeakValueDictionary

from lattice.core.clock import Clock
from lattice.core.errors import LatticeError
from lattice.gateway.encrypted.blobs import PIECE_BYTES, FolderBlobs, gathered
from lattice.gateway.encrypted.part_file import PartFile
from lattice.gateway.encrypted.running_hash import Hash, RunningHashes
from lattice.gateway.encrypted.upload_rows import (
    NewUpload,
    UploadRow,
    UploadState,
    create_upload,
    end_upload,
    expire_uploads,
    get_upload,
    mark_part,
    open_uploads,
)
from lattice.gateway.store.database import Store

RESERVE_BYTES = 256 * 1024 * 1024
"""Left free on the disk, because the database needs room for the very rows that say what failed."""


class Uploads:
    """The files behind `uploads`. One process owns the folder, so its locks are enough."""

    def __init__(self, store: Store, blobs: FolderBlobs, folder: Path, clock: Clock) -> None:
        self._store, self._blobs, self._folder, self._clock = store, blobs, folder, clock
        self._locks: WeakValueDictionary[tuple[str, int], asyncio.Lock] = WeakValueDictionary()
        self._tidied = False
        self._hashes = RunningHashes()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def require_room(self, size: int) -> None:
        """Raise `storage_full` before a byte is sent that could not be kept."""
        if shutil.disk_usage(self._folder).free < size + RESERVE_BYTES:
            raise LatticeError("storage_full")

    async def begin(self, new: NewUpload) -> UploadRow:
        """Announce an upload outside of an idempotent creation."""
        self.require_room(new.size)
        return await self._store.write(create_upload, new, self._clock.now_ms())

    async def put_part(self, row: UploadRow, part: int, body: AsyncIterator[bytes]) -> UploadRow:
        """Take a part. One that is there already is compared, not written: the same bytes are fine, others are not."""
        size = row.part_size(part)
        async with self._lock(row.id, part):
            row = await self._store.read(get_upload, row.account_id, row.id, row.token_id)
            row.require_open(self._clock.now_ms())
            if row.has(part):
                await self._compare(row, part, size, body)
                return row
            digest = await self._write(row, part, size, body)
            row = await self._store.write(mark_part, row.account_id, row.id, part)
            self._hashes.after(row, part, digest)
            return row

    async def complete(self, row: UploadRow) -> UploadRow:
        """Check the hash and give the bytes their name; again changes nothing."""
        async with self._lock(row.id, row.parts):
            row = await self._store.read(get_upload, row.account_id, row.id, row.token_id)
            if row.state == "complete":
                return row
            row.require_open(self._clock.now_ms())
            missing = row.missing()
            if missing:
                raise LatticeError("upload_incomplete", details={"missing": missing[:100]})
            path = self._path(row.id)
            found = self._hashes.whole(row)
            fits = await self._blobs.run(_size, path) == row.size and await self._blobs.adopt(path, row.sha256, found)
            state: UploadState = "complete" if fits else "expired"
            await self._store.write(end_upload, row.id, state, self._clock.now_ms())
            self._hashes.forget(row.id)
            await self._blobs.run(_remove, path)
        if not fits:
            raise LatticeError("upload_mismatch")
        return await self._store.read(get_upload, row.account_id, row.id, row.token_id)

    async def expire(self) -> None:
        """Let go of what was not completed in time, and once of what a killed process had no time to remove."""
        for upload_id in await self._store.write(expire_uploads, self._clock.now_ms()):
            self._hashes.forget(upload_id)
            await self._blobs.run(_remove, self._path(upload_id))
        if not self._tidied:
            there = await self._blobs.run(os.listdir, self._folder)  # before the rows: a row comes before its file
            kept = await self._store.read(open_uploads)
            for name in set(there) - kept:
                await self._blobs.run(_remove, self._path(name))
            self._tidied = True

    async def _write(self, row: UploadRow, part: int, size: int, body: AsyncIterator[bytes]) -> Hash | None:
        """One piece is written while the next one arrives. The hash of everything up to here, where it is known."""
        file, digest = await self._blobs.run(PartFile, self._path(row.id)), self._hashes.before(row, part)
        writing: asyncio.Future[None] | None = None
        try:
            offset, end = part * row.part_bytes, part * row.part_bytes + size
            async for piece in gathered(body, PIECE_BYTES):
                if offset + len(piece) > end:
                    raise _wrong_size(part, size)
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(self._blobs.run(file.write, piece, offset, digest))
                offset += len(piece)
            if offset != end:
                raise _wrong_size(part, size)
            if writing is not None:
                await writing
        finally:
            if writing is not None:
                await _over(writing)  # another try of this part must not meet it
            file.close()
        return digest

    async def _compare(self, row: UploadRow, part: int, size: int, body: AsyncIterator[bytes]) -> None:
        kept = self._blobs.path(row.sha256) if row.state == "complete" else self._path(row.id)
        descriptor = await self._blobs.run(os.open, kept, os.O_RDONLY | os.O_CLOEXEC)
        try:
            offset = part * row.part_bytes
            end = offset + size
            async for piece in gathered(body, PIECE_BYTES):
                if offset + len(piece) > end:
                    raise _wrong_size(part, size)
                if await self._blobs.run(os.pread, descriptor, len(piece), offset) != piece:
                    raise LatticeError("upload_conflict", f"Part {part} was sent before with other bytes.")
                offset += len(piece)
            if offset != end:
                raise _wrong_size(part, size)
        finally:
            os.close(descriptor)

    def _path(self, upload_id: str) -> Path:
        return self._folder / upload_id

    def _lock(self, upload_id: str, part: int) -> asyncio.Lock:
        return self._locks.setdefault((upload_id, part), asyncio.Lock())


def _wrong_size(part: int, size: int) -> LatticeError:
    return LatticeError("invalid_request", f"Part {part} has {size} bytes.")


async def _over(writing: asyncio.Future[None]) -> None:
    """Return when it has ended, also where the caller is cancelled meanwhile."""
    cancelled: asyncio.CancelledError | None = None
    while not writing.done():
        try:
            await asyncio.wait([writing])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return -1


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
