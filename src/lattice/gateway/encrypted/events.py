"""Who waits for the events of a model or of an account in this process, and the stream that they read."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from typing import Any

import msgspec
from sqlalchemy import Connection

from lattice.gateway.encrypted.event_rows import EventRow, account_events_after, events_after
from lattice.gateway.store.database import Store

LOOK_SECONDS = 1.0
"""Another gateway's events are found by looking; our own wake the reader at once."""
QUIET_SECONDS = 15.0
KEPT_STEPS = 64


class Reader:
    """One open stream."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.steps: list[bytes] = []


class EventHub:
    """Streams of events by model or account. Steps of a compilation pass through without being stored."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._readers: defaultdict[str, set[Reader]] = defaultdict(set)
        self.closing = asyncio.Event()

    def notify(self, model_id: str) -> None:
        """New rows are in the table."""
        for reader in self._readers.get(model_id, ()):
            reader.wake.set()

    def step(self, model_id: str, facts: dict[str, Any]) -> None:
        """Tell whoever reads now how far a compilation is."""
        data = b"event: version.progress\ndata: " + msgspec.json.encode(facts) + b"\n\n"
        for reader in self._readers.get(model_id, ()):
            if len(reader.steps) < KEPT_STEPS:
                reader.steps.append(data)
            reader.wake.set()

    def stream(self, model_id: str, after: str) -> AsyncIterator[bytes]:
        """Server-sent events of a model: what is stored behind `after`, then what happens."""
        return self._stream(model_id, after, lambda conn, seen: events_after(conn, model_id, seen))

    def account_stream(self, account_id: str, kinds: Collection[str], after: str) -> AsyncIterator[bytes]:
        """The same of everything of an account whose kind begins with one of `kinds`."""
        return self._stream(account_id, after, lambda conn, seen: account_events_after(conn, account_id, seen, kinds))

    async def _stream(
        self, name: str, after: str, read: Callable[[Connection, str], list[EventRow]]
    ) -> AsyncIterator[bytes]:
        """With comments where nothing happens."""
        reader = Reader()
        self._readers[name].add(reader)
        said = time.monotonic()
        try:
            while not self.closing.is_set():
                reader.wake.clear()
                rows = await self._store.read(read, after)
                steps, reader.steps = reader.steps, []
                for data in [*steps, *map(as_event, rows)]:
                    yield data
                if rows:
                    after = rows[-1].id
                if rows or steps:
                    said = time.monotonic()
                    continue
                if time.monotonic() - said > QUIET_SECONDS:
                    yield b": keep-alive\n\n"
                    said = time.monotonic()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await reader.wake.wait()
        finally:
            self._readers[name].discard(reader)
            if not self._readers[name]:
                del self._readers[name]

    def close(self) -> None:
        """End every stream."""
        self.closing.set()
        for model_id in list(self._readers):
            self.notify(model_id)


def as_event(row: EventRow) -> bytes:
    """A stored event as one server-sent event."""
    return f"id: {row.id}\nevent: {row.kind}\ndata: {row.body}\n\n".encode()
