"""The parts of encrypted inference that live as long as the gateway does."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import suppress
from pathlib import Path

import structlog

from lattice.core.clock import Clock
from lattice.core.errors import LatticeError
from lattice.gateway.encrypted import references
from lattice.gateway.encrypted.blobs import FolderBlobs
from lattice.gateway.encrypted.compiling import Compiler
from lattice.gateway.encrypted.event_rows import forget_events
from lattice.gateway.encrypted.events import EventHub
from lattice.gateway.encrypted.keys import KeyRegistry
from lattice.gateway.encrypted.sandbox import Limits
from lattice.gateway.encrypted.secret_box import SecretBox
from lattice.gateway.encrypted.token_rows import TokenRecord, find_token, touch_tokens
from lattice.gateway.encrypted.uploads import Uploads
from lattice.gateway.encrypted.webhooks import Webhooks
from lattice.gateway.identity.cache import SecretCache
from lattice.gateway.identity.pepper import Pepper
from lattice.gateway.settings import GatewaySettings
from lattice.gateway.store.database import Store

_log = structlog.get_logger("lattice.gateway.encrypted")

MIB = 1024 * 1024
MAX_FILE = 8 * 1024 * MIB
SWEEP_SECONDS = 600.0
GRACE_SECONDS = 3600.0
"""A blob this young may be named by a row that is just being written."""


class EncryptedPlatform:
    """Blobs, uploads, tokens, compilation, keys, events. `work` is the folder of files that are not finished."""

    def __init__(
        self, settings: GatewaySettings, store: Store, pepper: Pepper, clock: Clock, gateway_id: str, folder: Path
    ) -> None:
        self._store, self._clock = store, clock
        self.box = SecretBox(pepper)
        self.blobs = FolderBlobs(folder / "blobs")
        self.uploads = Uploads(store, self.blobs, folder / "uploads", clock)
        self.tokens: SecretCache[TokenRecord] = SecretCache(find_token, touch_tokens, store, pepper, clock)
        self.events = EventHub(store)
        self.webhooks = Webhooks(store, self.box, clock, settings.webhook_private_addresses)
        limits = Limits(
            memory_bytes=settings.compile_memory_mib * MIB,
            seconds=settings.compile_seconds,
            file_bytes=MAX_FILE,
        )
        scratch = folder / "compiling"
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed: its children ended with it
        self.compiler = Compiler(store, self.blobs, scratch, self.events, self.webhooks, clock, gateway_id, limits)
        self.keys = KeyRegistry(store, self.blobs, scratch, clock)
        self._swept = time.monotonic()

    def loops(self) -> list[asyncio.Task[None]]:
        """What runs while the gateway does."""
        return [
            asyncio.create_task(self.compiler.run_forever(), name="compile"),
            asyncio.create_task(self.webhooks.run_forever(), name="webhooks"),
        ]

    async def upkeep(self) -> None:
        """Every few seconds: what has expired goes."""
        await self.tokens.flush()
        await self.uploads.expire()
        if time.monotonic() - self._swept < SWEEP_SECONDS:
            return
        self._swept = time.monotonic()
        await self._store.write(forget_events, self._clock.now_ms())
        gone = await self.sweep(GRACE_SECONDS)
        if gone:
            _log.info("blobs_swept", blobs=gone)

    async def sweep(self, grace_seconds: float) -> int:
        """Delete blobs that no row names."""

        async def unused(hashes: list[bytes]) -> list[bytes]:
            return await self._store.read(references.unused, hashes)

        return await self.blobs.sweep(grace_seconds, unused)

    async def close(self) -> None:
        """Before the store closes."""
        self.events.close()
        with suppress(LatticeError):
            await self.tokens.flush()
        self.blobs.close()
