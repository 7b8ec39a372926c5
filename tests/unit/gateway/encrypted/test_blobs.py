"""Blobs: a name is there whole or not at all, and nothing else is left behind."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lattice.core.errors import LatticeError
from lattice.gateway.encrypted import blobs as module
from lattice.gateway.encrypted.blobs import FolderBlobs, gathered


@pytest.fixture
def blobs(tmp_path: Path) -> FolderBlobs:
    return FolderBlobs(tmp_path / "blobs")


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def read(blobs: FolderBlobs, sha256: bytes, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([piece async for piece in blobs.stream(sha256, start, end)])


async def test_what_is_put_is_read_and_named_by_its_hash(blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 100)
    data = os.urandom(1234)
    found = await blobs.put(chunks(data[:7], b"", data[7:1000], data[1000:]), 1234)
    assert found == (hashlib.sha256(data).digest(), 1234)
    assert await read(blobs, found.sha256) == data
    assert await read(blobs, found.sha256, 50, 250) == data[50:250]
    assert await read(blobs, found.sha256, 1234) == b""
    assert await blobs.size(found.sha256) == 1234
    path = blobs.path(found.sha256)
    assert (path.parent.name + path.name, stat.S_IMODE(path.stat().st_mode)) == (found.sha256.hex(), 0o600)
    assert await blobs.put(chunks(data), 1234) == found


async def test_the_same_bytes_at_once_are_one_blob(blobs: FolderBlobs) -> None:
    found = await asyncio.gather(*[blobs.put(chunks(b"same"), 10) for _ in range(20)])
    assert len(set(found)) == 1
    assert await read(blobs, found[0].sha256) == b"same"


async def test_too_much_a_broken_stream_and_a_full_disk_leave_nothing(
    blobs: FolderBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise ConnectionError

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    with pytest.raises(LatticeError, match="body_too_large"):
        await blobs.put(chunks(b"12345", b"6"), 5)
    with pytest.raises(ConnectionError):
        await blobs.put(broken(), 5)
    monkeypatch.setattr(module, "_append", full)
    with pytest.raises(LatticeError, match="storage_full"):
        await blobs.put(chunks(b"x"), 5)
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


async def test_a_missing_blob_is_not_found(blobs: FolderBlobs) -> None:
    assert await blobs.size(bytes(32)) is None
    with pytest.raises(LatticeError, match="not_found"):
        await read(blobs, bytes(32))


async def test_a_file_is_taken_over_only_under_its_own_hash(blobs: FolderBlobs, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"data")
    assert not await blobs.adopt(path, bytes(32))
    assert await blobs.size(bytes(32)) is None
    assert await blobs.adopt(path, hashlib.sha256(b"data").digest())
    path.unlink()
    assert await read(blobs, hashlib.sha256(b"data").digest()) == b"data"


async def test_what_a_killed_process_left_half_written_goes(blobs: FolderBlobs, tmp_path: Path) -> None:
    left = tmp_path / "blobs" / "incoming" / "torn"
    left.write_bytes(b"half")
    again = FolderBlobs(tmp_path / "blobs")
    assert not left.exists()
    again.close()


async def test_a_blob_that_is_taken_up_during_a_sweep_survives_it(blobs: FolderBlobs) -> None:
    kept, gone = await blobs.put(chunks(b"kept"), 9), await blobs.put(chunks(b"gone"), 9)
    for blob in (kept, gone):
        os.utime(blobs.path(blob.sha256), (1, 1))

    async def none_is_used(hashes: list[bytes]) -> list[bytes]:
        if kept.sha256 in hashes:
            await blobs.put(chunks(b"kept"), 9)
        return hashes

    assert await blobs.sweep(60, none_is_used) == 1
    assert (await blobs.size(kept.sha256), await blobs.size(gone.sha256)) == (4, None)


async def test_a_file_whose_last_byte_came_long_ago_is_young_once_it_is_taken_over(
    blobs: FolderBlobs, tmp_path: Path
) -> None:
    """Else a sweep between the name and the row that names it would take an upload that was completed late."""
    path, sha256 = tmp_path / "uploaded", hashlib.sha256(b"late").digest()
    path.write_bytes(b"late")
    os.utime(path, (1_000_000, 1_000_000))

    async def all_of_them(hashes: list[bytes]) -> list[bytes]:
        return hashes

    assert await blobs.adopt(path, sha256)
    assert await blobs.sweep(3600, all_of_them) == 0
    assert await read(blobs, sha256) == b"late"


async def test_pieces_are_gathered_to_one_size() -> None:
    sizes = [len(piece) async for piece in gathered(chunks(b"a" * 5, b"b" * 17, b"", b"c"), 10)]
    assert sizes == [10, 10, 3]


async def test_a_small_blob_is_there_and_handed_on_from_memory_once(
    blobs: FolderBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_BYTES", 100)
    data = os.urandom(100)
    found = await blobs.put_any(chunks(data[:7], data[7:]), 100, 1000)
    assert found == (hashlib.sha256(data).digest(), 100)
    assert await read(blobs, found.sha256) == data
    assert blobs.take_recent(found.sha256) == data
    assert blobs.take_recent(found.sha256) is None
    assert await read(blobs, found.sha256) == data


@pytest.mark.parametrize("announced", [101, None])
async def test_a_large_blob_or_one_of_unknown_size_is_not_kept_in_memory(
    blobs: FolderBlobs, announced: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SMALL_BYTES", 100)
    data = os.urandom(announced or 50)
    found = await blobs.put_any(chunks(data), announced, 1000)
    assert await read(blobs, found.sha256) == data
    assert blobs.take_recent(found.sha256) is None


async def test_no_small_body_is_longer_than_the_limit(blobs: FolderBlobs, tmp_path: Path) -> None:
    with pytest.raises(LatticeError, match="body_too_large"):
        await blobs.put_any(chunks(b"a" * 10, b"b"), 10, 10)
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []
