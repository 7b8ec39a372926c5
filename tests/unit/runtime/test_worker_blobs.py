"""The worker's cache of files: what a killed download leaves, and what another process is still writing."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from lattice.runtime.worker.blobs import STALE_S, BlobCache, BlobWriter


async def test_parts_of_dead_downloads_go_and_those_of_others_stay(tmp_path: Path) -> None:
    data = b"a program"
    sha256 = hashlib.sha256(data).hexdigest()

    async def download(_: str, writer: BlobWriter) -> None:
        await writer.write(data)

    place = tmp_path / sha256[:2]
    place.mkdir()
    dead, growing = place / ".part-dead", place / ".part-growing"
    for path in (dead, growing):
        path.write_bytes(b"x" * 100)
    long_ago = time.time() - STALE_S - 60
    os.utime(dead, (long_ago, long_ago))
    path = await BlobCache(tmp_path, 10).get(sha256, download)
    assert path.read_bytes() == data
    assert sorted(each.name for each in place.iterdir()) == [".part-growing", path.name]
