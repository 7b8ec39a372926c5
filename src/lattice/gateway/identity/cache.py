"""Caches of credentials: a request's key costs one HMAC and one look-up, and a revocation works within a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar

from sqlalchemy import Connection

from lattice.core.clock import MINUTE_MS, Clock, SystemClock
from lattice.core.errors import LatticeError
from lattice.gateway.identity.keys import KeyRecord, find_key, touch_keys
from lattice.gateway.identity.pepper import Pepper
from lattice.gateway.store.database import Store

LIFE_SECONDS = 1.0
MAX_KEYS = 10_000
MAX_SECRET_LENGTH = 128


class Credential(Protocol):
    """What a secret opens."""

    @property
    def id(self) -> str:
        """Its public name."""
        ...

    def require_live(self, now_ms: int) -> None:
        """Raise `revoked_grant` or the error of an expired one."""
        ...


R = TypeVar("R", bound=Credential)


class SecretCache(Generic[R]):
    """Authenticates secrets. An unknown one is `invalid_credential`; an outage is `store_unavailable`, never a 401."""

    def __init__(
        self,
        find: Callable[[Connection, bytes], R | None],
        touch: Callable[[Connection, Iterable[tuple[str, int]]], None],
        store: Store,
        pepper: Pepper,
        clock: Clock | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find, self._touch = find, touch
        self._store = store
        self._hash = pepper.hash
        self._clock = clock or SystemClock()
        self._monotonic = monotonic
        self._known: dict[bytes, tuple[float, R | None]] = {}
        self._asking: dict[bytes, asyncio.Task[R | None]] = {}
        self._used: dict[str, int] = {}
        self._flushed: dict[str, int] = {}

    async def authenticate(self, secret: str) -> R:
        """The live key that this secret opens."""
        if len(secret) > MAX_SECRET_LENGTH:
            raise LatticeError("invalid_credential")
        digest = self._hash(secret)
        known = self._known.get(digest)
        if known is not None and known[0] > self._monotonic():
            record = known[1]
        else:
            record = await self._ask(digest)
        if record is None:
            raise LatticeError("invalid_credential")
        now_ms = self._clock.now_ms()
        record.require_live(now_ms)
        self._used[record.id] = now_ms
        return record

    def clear(self) -> None:
        """Forget everything, so that a change made here works at once; other gateways follow within a second."""
        self._known.clear()
        self._asking.clear()

    async def flush(self) -> None:
        """Write last-used times, each key's at most once a minute. Call it every few seconds and before closing."""
        now_ms = self._clock.now_ms()
        due = [(key, used) for key, used in self._used.items() if now_ms - self._flushed.get(key, 0) >= MINUTE_MS]
        if not due:
            return
        await self._store.write(self._touch, due)
        for key, used in due:
            self._flushed[key] = now_ms
            if self._used.get(key) == used:
                del self._used[key]
        if len(self._flushed) > MAX_KEYS:
            self._flushed = {key: at for key, at in self._flushed.items() if now_ms - at < MINUTE_MS}

    async def _ask(self, digest: bytes) -> R | None:
        task = self._asking.get(digest)
        if task is None:
            task = asyncio.create_task(self._read(digest))
            task.add_done_callback(_retrieve)
            self._asking[digest] = task
        # Shielded: one of several callers that goes away must not take the others' answer with it.
        return await asyncio.shield(task)

    async def _read(self, digest: bytes) -> R | None:
        task = asyncio.current_task()
        asked = self._monotonic()  # the answer is at least this old
        try:
            record = await self._store.read(self._find, digest)
        finally:
            current = self._asking.get(digest) is task
            if current:
                del self._asking[digest]
        if current:  # not cleared meanwhile
            self._remember(digest, asked + LIFE_SECONDS, record)
        return record

    def _remember(self, digest: bytes, until: float, record: R | None) -> None:
        self._known.pop(digest, None)
        while len(self._known) >= MAX_KEYS:
            del self._known[next(iter(self._known))]
        self._known[digest] = (until, record)


class KeyCache(SecretCache[KeyRecord]):
    """Developer keys."""

    def __init__(
        self,
        store: Store,
        pepper: Pepper,
        clock: Clock | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(find_key, touch_keys, store, pepper, clock, monotonic=monotonic)


def _retrieve(task: asyncio.Task[R | None]) -> None:
    """Look at the error even where every caller has gone away, so that asyncio does not report it as lost."""
    if not task.cancelled():
        task.exception()
