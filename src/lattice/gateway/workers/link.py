"""One worker's connection as this gateway sees it: its session, its slots, what it holds, and what it is to be told.

Pure bookkeeping without I/O; `service` makes it durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lattice.core.worker_relay import WorkerPoll
from lattice.gateway.queries.rows import Leased
from lattice.gateway.workers.rollout import Offer, Programs
from lattice.gateway.workers.rows import WorkerRow

MAX_SLOTS = 256
MAX_SESSIONS = 64


class WorkerLink:
    """The live half of a worker's row."""

    def __init__(self, row: WorkerRow) -> None:
        self.row = row
        self.session: str | None = None
        self.identity = ""
        self.slots = 0
        self.ahead = 0
        self.cached: frozenset[str] = frozenset()
        self.leased: dict[str, Leased] = {}
        self.turn = 0
        self.beat_ms = 0
        self.heard_ms = 0
        self.busy_ms = 0  # when it last had something to do
        self.told_stop = False
        self.inline = False
        self.seen_empty = -1
        """What was queued for it (`Switchboard.queued`) when a look found less than it had room for."""
        self.reserved = 0
        """Slots of leases that are being written."""
        self._behind: dict[str, None] = {}
        """Leases that wait at the worker for others to end, the next one first."""
        self._began: dict[str, int] = {}
        """When those of them that have had their turn began."""
        self.programs = Programs()
        self.offer: Offer | None = None
        self.ready = True
        self._told: tuple[int, Offer | None] | None = None
        self._former: dict[str, None] = {}
        self._held: frozenset[str] = frozenset()
        self._sent: dict[str, int] = {}
        self._cancels: set[str] = set()
        self._waiter: asyncio.Future[None] | None = None

    # --- sessions ------------------------------------------------------------------------------------------

    def superseded(self, session: str) -> bool:
        """Whether a newer session has taken this one's place."""
        return session in self._former

    def open_session(self, session: str, leases: Iterable[Leased]) -> None:
        """Another session speaks from now on; `leases` is what it goes on with."""
        if self.session is not None:
            self._former[self.session] = None
            while len(self._former) > MAX_SESSIONS:
                del self._former[next(iter(self._former))]
        self.session, self.told_stop, self._told = session, False, None
        self.forget()
        self.leased = {each.row.id: each for each in leases}
        self._sent.clear()
        self._cancels.clear()
        self.wake()

    def begin(self, poll: WorkerPoll, now_ms: int) -> int:
        """Take note of a poll and end the one before; returns the poll's turn."""
        self.wake()
        self.turn += 1
        self.heard_ms = now_ms
        self.identity = poll.identity or self.identity
        self.slots = min(max(poll.concurrency, 0), MAX_SLOTS) if poll.active else 0
        self.cached = frozenset(poll.cached[:256])
        self.inline = poll.inline
        self.ahead = min(max(poll.ahead, 0), max(self.slots - 1, 0))
        self._held = frozenset(poll.running)
        # What a lost reply carried is sent again; what the worker has and should not have, it is told to drop.
        self._sent = {query: attempt for query, attempt in self._sent.items() if query in self._held}
        self._cancels |= self._held - self.leased.keys()
        return self.turn

    # --- work ----------------------------------------------------------------------------------------------

    @property
    def free(self) -> int:
        """Slots that nothing is leased into; none for a worker that is to stop."""
        return self.room() if self.row.state == "active" and self.ready else 0

    def room(self) -> int:
        """Slots for which no lease is there or on its way, whatever the worker's state."""
        return max(0, self.slots - len(self.leased) - self.reserved)

    @contextmanager
    def reserve(self, slots: int) -> Iterator[None]:
        """Nobody else fills these slots while leases for them are being written."""
        self.reserved += slots
        try:
            yield
        finally:
            self.reserved -= slots

    def add(self, leases: Iterable[Leased]) -> None:
        """These were leased to it."""
        for each in leases:
            if len(self.leased) - len(self._behind) >= self.slots - self.ahead:
                self._behind[each.row.id] = None
            self.leased[each.row.id] = each

    def began_ms(self, query_id: str) -> int:
        """When a lease that had to wait for others at the worker had its turn; 0 for one that began at once."""
        return self._began.get(query_id, 0)

    def has(self, query_id: str, attempt: int) -> bool:
        """Whether this attempt of the query is leased to it."""
        found = self.leased.get(query_id)
        return found is not None and found.row.attempt == attempt

    def drop(self, query_id: str, now_ms: int, *, cancel: bool = False) -> None:
        """The lease has ended; with `cancel` the worker is told."""
        if self.leased.pop(query_id, None) is None:
            return
        self._began.pop(query_id, None)
        if query_id in self._behind:
            del self._behind[query_id]
        elif self._behind:
            turn = next(iter(self._behind))
            del self._behind[turn]
            self._began[turn] = now_ms
        if cancel:
            self._cancels.add(query_id)
            self.wake()

    def forget(self) -> None:
        """Nothing is leased to it any more."""
        self.leased = {}
        self._behind.clear()
        self._began.clear()

    def unsent(self) -> list[Leased]:
        """Leases that the worker does not know of yet."""
        return [each for each in self.leased.values() if self._sent.get(each.row.id) != each.row.attempt]

    def take_news(self) -> tuple[list[Leased], tuple[str, ...]]:
        """What the reply says: new leases and cancellations. They count as sent."""
        fresh = self.unsent()
        self._sent |= {each.row.id: each.row.attempt for each in fresh}
        self._told = (self.row.version, self.offer)
        cancels, self._cancels = tuple(sorted(self._cancels)), set()
        return fresh, cancels

    @property
    def has_news(self) -> bool:
        """Whether a held poll should be answered."""
        stopping = self.row.state in ("stopping", "stopped") and not self.told_stop
        rolled = self.row.open and self._told is not None and self._told != (self.row.version, self.offer)
        return bool(self._cancels) or stopping or rolled or bool(self.unsent())

    @property
    def waits(self) -> bool:
        """Whether a poll is held that work could go out with."""
        return self._waiter is not None

    # --- waiting -------------------------------------------------------------------------------------------

    async def wait(self, turn: int, seconds: float) -> None:
        """Hold a poll until somebody wakes it, a newer one begins, or the time is up."""
        if turn != self.turn or seconds <= 0:
            return
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            pass
        finally:
            if self._waiter is waiter:
                self._waiter = None

    def wake(self) -> None:
        """Let a held poll look again."""
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
