"""Resumable uploads: announce size and hash, send the parts that the gateway lacks, complete.

Which upload stands for which bytes is remembered in the client's folder, so a process that is started again goes on
where the one before stopped. Parts that arrived twice are compared by the gateway, so every call may be repeated.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from lattice.client.context import Context
from lattice.client.exchange import Call, Plan, compute, send
from lattice.client.settings import path_segment
from lattice.core.errors import LatticeError

Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, how much of it is done, and how much there is."""

ENDED = {"upload_expired", "upload_mismatch", "upload_conflict", "not_found"}


def silent(_stage: str, _done: int, _total: int) -> None:
    """No progress wanted."""


class Source(Protocol):
    """Bytes that can be read again from anywhere."""

    @property
    def size(self) -> int: ...

    def sha256(self) -> str: ...

    def read(self, offset: int, size: int) -> bytes: ...


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """How many."""
        return len(self._data)

    def sha256(self) -> str:
        """Hex."""
        return hashlib.sha256(self._data).hexdigest()

    def read(self, offset: int, size: int) -> bytes:
        """A part."""
        return bytes(memoryview(self._data)[offset : offset + size])


class FileSource:
    """A file, read part by part."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._size = path.stat().st_size
        except OSError as error:
            raise LatticeError("invalid_request", f"{path} cannot be read: {error.strerror}.") from None

    @property
    def size(self) -> int:
        """How many."""
        return self._size

    def sha256(self) -> str:
        """Hex."""
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def read(self, offset: int, size: int) -> bytes:
        """A part; a file that changed under the upload is refused by its hash in the end."""
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


class Memo:
    """Which upload was begun for which bytes: one small file each, without secrets. Losing one costs a new upload."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, name: str) -> str | None:
        """The upload's id."""
        if self._folder is None:
            return None
        with suppress(OSError, UnicodeDecodeError):
            return (self._folder / name).read_text().strip() or None
        return None

    def put(self, name: str, upload: str) -> None:
        """Remember."""
        if self._folder is not None:
            with suppress(OSError):
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                (self._folder / name).write_text(upload)

    def drop(self, name: str) -> None:
        """Forget."""
        if self._folder is not None:
            with suppress(OSError):
                os.unlink(self._folder / name)


def upload(
    context: Context, kind: str, source: Source, memo: Memo, progress: Progress = silent, stage: str = "upload"
) -> Plan[str]:
    """Send everything; the id of the completed upload."""
    sha256 = yield from compute(source.sha256)
    name = hashlib.sha256(f"{context.root} {kind} {sha256}".encode()).hexdigest()[:32]
    begun = yield from _resumed(context, memo.get(name))
    if begun is None:
        body = {"kind": kind, "bytes": source.size, "sha256": sha256}
        begun = yield from context.post_json("/uploads", body, idempotency_key=context.new_key(), replay_safe=True)
        memo.put(name, str(begun["id"]))
    identity = path_segment(str(begun["id"]))
    try:
        yield from _send_parts(context, identity, begun, source, progress, stage)
        yield from context.post_json(f"/uploads/{identity}/complete", {}, replay_safe=True)
    except LatticeError as error:
        if error.code in ENDED:
            memo.drop(name)
        raise
    memo.drop(name)
    return identity


def _resumed(context: Context, identity: str | None) -> Plan[dict[str, Any] | None]:
    if identity is None:
        return None
    try:
        found = yield from context.get_json(f"/uploads/{path_segment(identity)}")
    except LatticeError as error:
        if error.code in ENDED:
            return None
        raise
    return found if found.get("state") in ("open", "complete") else None


def _send_parts(
    context: Context, identity: str, begun: dict[str, Any], source: Source, progress: Progress, stage: str
) -> Plan[None]:
    size, part_bytes = source.size, int(begun["part_bytes"])
    missing = missing_parts(begun, -(-size // part_bytes))
    done = size - sum(min(part_bytes, size - part * part_bytes) for part in missing)
    progress(stage, done, size)
    for part in missing:
        content = source.read(part * part_bytes, part_bytes)
        call = Call(
            "PUT",
            f"{context.root}/uploads/{identity}/parts/{part}",
            content,
            {**context.headers, "content-type": "application/octet-stream"},
            replay_safe=True,
            timeout_s=context.timeout_s,
        )
        yield from send(call, context.policy)
        done += len(content)
        progress(stage, done, size)


def missing_parts(view: dict[str, Any], parts: int) -> list[int]:
    """What the gateway lacks, by the parts that it says it has."""
    if view.get("state") == "complete":
        return []
    received = view.get("received")
    there = set(received) if isinstance(received, list) else set()
    return [part for part in range(parts) if part not in there]
