"""Registers evaluation keys: an upload becomes a user's keys once a child process found them to be the right ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import Connection

from lattice.core.clock import Clock
from lattice.core.errors import LatticeError
from lattice.gateway.encrypted.blobs import BlobStore
from lattice.gateway.encrypted.evaluation_key_rows import KeysRow, NewKeys, list_keys, register_keys
from lattice.gateway.encrypted.sandbox import Limits, Task, run_child, scratch
from lattice.gateway.encrypted.token_rows import TokenRecord
from lattice.gateway.encrypted.upload_rows import UploadRow, complete_upload
from lattice.gateway.encrypted.version_rows import VersionRow
from lattice.gateway.store.database import Store
from lattice.gateway.workers.standing import asked_version

AT_ONCE = 2
BASE_MEMORY = 1536 * 1024 * 1024
SECONDS = 120.0


class KeyRegistry:
    """Checks are slow and bounded: a few at a time, and whoever comes then waits."""

    def __init__(self, store: Store, blobs: BlobStore, folder: Path, clock: Clock) -> None:
        self._store, self._blobs, self._folder, self._clock = store, blobs, folder, clock
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def check(self, token: TokenRecord, upload_id: str, number: int | None = None) -> NewKeys:
        """What may be registered for a version, the current one for None.

        Raises `keys_mismatch`, `blob_invalid`, `upload_incomplete`, `model_not_ready`.
        """
        user = token.require_user()
        upload, version, known = await self._store.read(_inputs, token, upload_id, user, number)
        assert version.parameters_id is not None
        assert version.keys_hash is not None
        if known is not None and known.keys_hash == version.keys_hash and known.public_key_sha256 is not None:
            public = known.public_key_sha256  # these very bytes were checked before
        else:
            public = await self._look(upload, version)
        return NewKeys(
            account_id=token.account_id,
            model_id=token.model_id,
            user=user,
            parameters_id=version.parameters_id,
            keys_hash=version.keys_hash,
            blob_sha256=upload.sha256,
            public_key_sha256=public,
            size=upload.size,
        )

    def register(self, conn: Connection, new: NewKeys) -> KeysRow:
        """Store what was checked."""
        return register_keys(conn, new, self._clock.now_ms())

    async def _look(self, upload: UploadRow, version: VersionRow) -> bytes:
        assert version.client_sha256 is not None
        assert version.key_bytes is not None
        if upload.size > 2 * version.key_bytes + 256 * 1024 * 1024:
            raise LatticeError("keys_mismatch", f"The model's keys have about {version.key_bytes} bytes.")
        limits = Limits(memory_bytes=BASE_MEMORY + upload.size, seconds=SECONDS, file_bytes=1024 * 1024)
        async with self._turns, scratch(self._folder) as out:
            task = Task(
                kind="keys",
                source=str(self._blobs.path(upload.sha256)),
                out=str(out),
                limits=limits,
                client=str(self._blobs.path(version.client_sha256)),
            )
            facts = await run_child(task)
        return bytes.fromhex(facts["public_key_sha256"])


def _inputs(
    conn: Connection, token: TokenRecord, upload_id: str, user: str, number: int | None
) -> tuple[UploadRow, VersionRow, KeysRow | None]:
    upload = complete_upload(conn, token.account_id, upload_id, ("evaluation_keys",), token.id)
    version = asked_version(conn, token.model_id, number)
    rows = list_keys(conn, token.model_id, user)
    return upload, version, next((row for row in rows if row.blob_sha256 == upload.sha256), None)
