"""Brings versions from `uploaded` to `ready` or `failed`, one at a time, each in a bounded child process."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog

from lattice.core.clock import Clock
from lattice.core.errors import LatticeError
from lattice.gateway.encrypted.blobs import FolderBlobs
from lattice.gateway.encrypted.events import EventHub
from lattice.gateway.encrypted.model_rows import ModelRow, find_model
from lattice.gateway.encrypted.sandbox import Limits, Task, remove_orphans, run_child, scratch
from lattice.gateway.encrypted.version_rows import (
    Ready,
    VersionRow,
    begin_version,
    fail_version,
    finish_version,
    open_versions,
)
from lattice.gateway.encrypted.webhooks import Webhooks
from lattice.gateway.store.database import Store

_log = structlog.get_logger("lattice.gateway.compiling")

MAX_ARTEFACT = 4 * 1024**3
RETRY_SECONDS = 5.0


class Compiler:
    """The queue is the table itself: a gateway that starts again finds there what the one before it left."""

    def __init__(
        self,
        store: Store,
        blobs: FolderBlobs,
        folder: Path,
        events: EventHub,
        webhooks: Webhooks,
        clock: Clock,
        gateway_id: str,
        limits: Limits,
    ) -> None:
        self._store, self._blobs, self._folder = store, blobs, folder
        self._events, self._webhooks, self._clock = events, webhooks, clock
        self._gateway_id, self._limits = gateway_id, limits
        self.wake = asyncio.Event()

    def notify(self, model_id: str) -> None:
        """Rows of a model changed: there may be work, and somebody may wait to hear of it."""
        self.wake.set()
        self._events.notify(model_id)
        self._webhooks.wake.set()

    async def run_forever(self) -> None:
        """Work off the open versions, oldest first, until cancelled. First of all, what a crash left goes."""
        orphans = await asyncio.to_thread(remove_orphans, self._folder)
        if orphans:
            _log.info("orphans_removed", folders=orphans)
        while True:
            self.wake.clear()
            try:
                rows = await self._store.read(open_versions, self._gateway_id)
                for row in rows:
                    await self._advance(row)
                wait = None if not rows else 0.0
            except LatticeError as error:  # the database is away; the version is not to blame
                _log.warning("compiling_failed", code=error.code)
                wait = RETRY_SECONDS
            except Exception as error:
                _log.error("compiling_failed", exception=type(error).__name__)
                wait = RETRY_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self.wake.wait()

    async def _advance(self, row: VersionRow) -> None:
        model = await self._store.read(find_model, row.model_id)
        if model is None:
            await self._fail_deleted(row)
            return
        if row.source_kind == "onnx" and row.state == "uploaded":
            await self._store.write(begin_version, model, row.number, self._clock.now_ms())
            self.notify(model.id)
        try:
            ready = await self._look(row)
        except LatticeError as error:
            if error.code == "store_unavailable":
                raise
            reason = f"{error.code}: {error.message}"
            await self._store.write(fail_version, model, row.number, reason, self._clock.now_ms())
        else:
            await self._store.write(finish_version, model, row.number, ready, self._clock.now_ms())
        self.notify(model.id)

    async def _fail_deleted(self, row: VersionRow) -> None:
        gone = ModelRow(row.model_id, "", "", "private", "own", "{}", None, None, 0, 0)
        await self._store.write(fail_version, gone, row.number, "the model was deleted", self._clock.now_ms())

    async def _look(self, row: VersionRow) -> Ready:
        async with scratch(self._folder) as out:
            calibration = None if row.calibration_sha256 is None else str(self._blobs.path(row.calibration_sha256))
            task = Task(
                kind=row.source_kind,
                source=str(self._blobs.path(row.source_sha256)),
                out=str(out),
                limits=self._limits,
                calibration=calibration,
                options=msgspec.json.decode(row.options),
            )
            facts = await run_child(task, lambda stage, part: self._step(row, stage, part))
            return await self._keep(row, out, facts)

    async def _keep(self, row: VersionRow, out: Path, facts: dict[str, Any]) -> Ready:
        artefact = row.source_sha256
        if "artefact" in facts:
            artefact = await self._adopt(out / "artefact")
        client = await self._adopt(out / "client")
        size = await self._blobs.size(artefact)
        assert size is not None
        return Ready(
            artefact_sha256=artefact,
            artefact_bytes=size,
            client_sha256=client,
            program_id=facts["program_id"],
            parameters_id=facts["parameters_id"],
            keys_hash=keys_hash(facts["keys_id"]),
            key_bytes=facts["key_bytes"],
            report=msgspec.json.encode(facts["report"]).decode(),
            interface_hash=bytes.fromhex(facts["interface"]),
        )

    async def _adopt(self, path: Path) -> bytes:
        sha256 = await self._blobs.run(_digest, path)
        await self._blobs.adopt(path, sha256)
        return sha256

    def _step(self, row: VersionRow, stage: str, part: float) -> None:
        facts = {"model": row.model_id, "version": row.number, "stage": stage, "part": part}
        self._events.step(row.model_id, facts)


def keys_hash(keys_id: str) -> bytes:
    """The bytes of a `ksp_…` id, which names a list of keys for one set of parameters."""
    return bytes.fromhex(keys_id.removeprefix("ksp_"))


def _digest(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
