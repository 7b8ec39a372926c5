"""Files written past the page cache: the same bytes, whatever their places and sizes, on any file system."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from lattice.gateway.encrypted import part_file as module
from lattice.gateway.encrypted.part_file import ALIGNMENT, PartFile, aligned

SIZES = (ALIGNMENT, 3 * ALIGNMENT, 1, ALIGNMENT - 1, 2 * ALIGNMENT, ALIGNMENT + 1, 5)


def written(path: Path) -> bytes:
    """Pieces of all sizes, most of them at odd places; the hash is that of what lies there."""
    data, at, digest = os.urandom(sum(SIZES)), 0, hashlib.sha256()
    file = PartFile(path)
    for size in SIZES:
        piece = aligned(size)
        piece[:] = data[at : at + size]
        file.write(piece, at, digest)
        at += size
    file.close()
    assert path.read_bytes() == data
    assert digest.digest() == hashlib.sha256(data).digest()
    return data


def test_pieces_of_any_size_at_any_place(tmp_path: Path) -> None:
    written(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_parts_may_come_in_any_order(tmp_path: Path) -> None:
    for number in (2, 0, 1):
        piece = aligned(ALIGNMENT)
        piece[:] = bytes([number]) * ALIGNMENT
        file = PartFile(tmp_path / "file")
        file.write(piece, number * ALIGNMENT)
        file.close()
    assert (tmp_path / "file").read_bytes() == b"".join(bytes([number]) * ALIGNMENT for number in range(3))


def test_a_file_system_that_knows_no_way_past_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so when the file is opened, or only when it is written."""
    flag, opened, wrote = module._DIRECT, os.open, os.pwrite
    direct = []

    def refuse_open(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & flag:
            raise OSError(errno.EINVAL, "no")
        return opened(path, flags, mode)

    def watch_open(path: Path, flags: int, mode: int = 0o777) -> int:
        # A plain descriptor in its place: what the test is about is the refusal, on any file system.
        descriptor = opened(path, flags & ~flag, mode)
        if flags & flag:
            direct.append(descriptor)
        return descriptor

    def refuse_write(descriptor: int, data: memoryview, offset: int) -> int:
        if direct and descriptor == direct[-1]:
            direct.pop()
            raise OSError(errno.EINVAL, "no")
        return wrote(descriptor, data, offset)

    monkeypatch.setattr(os, "open", refuse_open)
    written(tmp_path / "one")
    monkeypatch.setattr(os, "open", watch_open)
    monkeypatch.setattr(os, "pwrite", refuse_write)
    written(tmp_path / "two")
    assert direct == []


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    file = PartFile(tmp_path / "file")
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="full"):
        file.write(aligned(ALIGNMENT), 0)
    file.close()
