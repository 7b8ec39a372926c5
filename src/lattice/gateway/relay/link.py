"""One runtime's connection as this gateway sees it: its session, what it offers, its queue and its leases.

Pure bookkeeping: it is handed `now_ms`, keeps no timers and does no I/O, so that every rule of the relay protocol can
be tested without a network.
"""

from __future__ import annotations

import asyncio
from collections import deque

from lattice.core.clock import SECOND_MS
from lattice.core.errors import LatticeError
from lattice.core.relay import (
    LEASE_MS,
    MAX_RELAY_BODY,
    REACHABLE_MS,
    Announcement,
    LeasedWork,
    ModelOffer,
    PollReply,
    PollRequest,
    WorkRef,
)
from lattice.gateway.relay.work import LiveWork
from lattice.sealing.identity import PublicIdentity
from lattice.sealing.key_config import KeyConfig

DROPPED_GRACE_MS = 5 * SECOND_MS
"""A daemon whose poll connection broke has this long to come back before its runtime counts as gone."""

MAX_BATCH = 64
MAX_BATCH_BYTES = MAX_RELAY_BODY // 2
"""A reply must fit what a daemon reads; one envelope is smaller than this and always fits."""

MAX_SESSIONS = 64
"""How many sessions of one daemon process are remembered; frames that name an older one are refused."""


class Link:
    """The live half of a runtime's record."""

    def __init__(self, runtime_id: str, account_id: str, kind: str, identity: PublicIdentity, max_queue: int) -> None:
        self.runtime_id = runtime_id
        self.account_id = account_id
        self.kind = kind
        self.identity = identity
        self.max_queue = max_queue
        self.models: tuple[ModelOffer, ...] = ()
        self.key_config: KeyConfig | None = None
        self.encoded_key_config = b""
        self.concurrency = 1
        self.session: str | None = None
        self.instance: str | None = None
        self.sessions: dict[str, None] = {}
        self.draining = False
        self.last_poll_ms = 0
        self.dropped_ms: int | None = None
        self.queue: deque[LiveWork] = deque()
        self.leased: dict[str, LiveWork] = {}
        self._outbox: list[LiveWork] = []
        self._cancels: list[WorkRef] = []
        self._unacked: tuple[int, list[LiveWork], list[WorkRef]] | None = None
        self._seq = 0
        self._waiter: asyncio.Future[None] | None = None

    # --- reading ---------------------------------------------------------------------------------------------

    def reachable(self, now_ms: int) -> bool:
        """Whether the daemon polls: a poll is open, or the last one ended a moment ago."""
        if self.session is None or self.draining:
            return False
        if self._waiter is not None:
            return True
        if self.dropped_ms is not None:
            return now_ms - self.dropped_ms < DROPPED_GRACE_MS
        return now_ms - self.last_poll_ms < REACHABLE_MS

    def gone(self, now_ms: int) -> bool:
        """Whether the daemon has been away so long that its work cannot be waited for."""
        if self._waiter is not None:
            return False
        if self.dropped_ms is not None:
            return now_ms - self.dropped_ms >= DROPPED_GRACE_MS
        return now_ms - self.last_poll_ms >= REACHABLE_MS

    @property
    def load(self) -> float:
        """Works per slot; what routing compares."""
        return (len(self.leased) + len(self.queue)) / max(1, self.concurrency)

    def offer(self, local_model: str | None, task: str) -> ModelOffer | None:
        """The offer of that name, or the runtime's default for the task."""
        for model in self.models:
            if task in model.tasks and local_model in (None, model.id):
                return model
        return None

    # --- sessions --------------------------------------------------------------------------------------------

    def open_poll(self, poll: PollRequest, now_ms: int) -> list[LiveWork]:
        """Take note of a poll. Opens its session if it is new; returns works that the old daemon process lost."""
        lost: list[LiveWork] = []
        if poll.session != self.session:
            self.wake()
            self._give_back()
            if self.instance != poll.instance:
                lost = [work for work in self.leased.values() if work.dispatched]
                self.sessions.clear()
            self.session, self.instance, self._seq = poll.session, poll.instance, 0
            self._remember(poll.session)
        elif self._unacked is not None and poll.ack >= self._unacked[0]:
            self._unacked = None
        else:
            self._give_back()
        self.draining = poll.draining
        self.last_poll_ms, self.dropped_ms = now_ms, None
        return lost

    def announce(self, announcement: Announcement, key_config: KeyConfig | None, encoded: bytes) -> None:
        """Take what the daemon said of itself; the key configuration has been verified by the caller."""
        self.models = announcement.models
        self.concurrency = max(1, announcement.concurrency)
        self.key_config, self.encoded_key_config = key_config, encoded

    def close(self) -> None:
        """End the session for good."""
        self.session = None
        self.sessions.clear()
        self.wake()

    def poll_ended(self, now_ms: int, dropped: bool) -> None:
        """The poll's connection is done; `dropped` where the daemon went away instead of being answered."""
        self.last_poll_ms = now_ms
        if dropped:
            self.dropped_ms = now_ms
            self._give_back()

    async def wait(self, session: str, seconds: float) -> None:
        """Hold the poll until there is something to hand over, a newer session opens, or the time is up."""
        if self.has_news or self.session != session:
            return
        self.wake()
        waiter = self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            return
        finally:
            if self._waiter is waiter:
                self._waiter = None

    @property
    def has_news(self) -> bool:
        """Whether a poll would be answered at once."""
        return bool(self._outbox or self._cancels)

    # --- work ------------------------------------------------------------------------------------------------

    def admit(self, work: LiveWork, now_ms: int) -> None:
        """Reserve a slot (lease) or a place in the queue; raises `queue_full`. Nothing is handed over yet."""
        if len(self.leased) < self.concurrency:
            self._lease(work, now_ms)
        elif len(self.queue) >= self.max_queue:
            raise LatticeError(
                "queue_full", f"{len(self.queue)} works wait for {self.runtime_id} already.", retry_after_ms=2_000
            )
        else:
            self.queue.append(work)

    def dispatch(self, work: LiveWork) -> None:
        """Hand over a leased work whose admission is durable. Queued works follow when a slot is free."""
        if work.state == "leased":
            self._outbox.append(work)
            self.wake()

    def promote(self, now_ms: int) -> list[LiveWork]:
        """Lease queued works into free slots; the caller makes the leases durable, then dispatches them."""
        promoted = []
        while self.queue and len(self.leased) < self.concurrency:
            work = self.queue.popleft()
            self._lease(work, now_ms)
            promoted.append(work)
        return promoted

    def cancel(self, work: LiveWork) -> None:
        """Tell the daemon to stop it, if the daemon ever got it."""
        if work.dispatched:
            self._cancels.append(work.ref)
            self.wake()

    def end(self, work: LiveWork) -> None:
        """Free the work's slot or queue place."""
        work.state = "ended"
        self.leased.pop(work.work_id, None)
        if work in self.queue:
            self.queue.remove(work)

    def reply(self, now_ms: int, results_url: str | None, drain: bool) -> PollReply:
        """Everything there is to hand over, in one batch that stays unacknowledged until the next poll."""
        works = self._batch()
        cancels, self._cancels = self._cancels, []
        self._seq += 1
        if works or cancels:
            self._unacked = (self._seq, works, cancels)
        for work in works:
            work.dispatched = True
            work.lease_expires_ms = now_ms + LEASE_MS
        return PollReply(
            seq=self._seq,
            works=tuple(LeasedWork(w.work_id, w.attempt, w.envelope, w.deadline_ms) for w in works),
            cancels=tuple(cancels),
            results_url=results_url,
            drain=drain,
            now_ms=now_ms,
        )

    def current(self, ref_id: str, attempt: int) -> LiveWork | None:
        """The leased work, if that attempt still holds the lease."""
        work = self.leased.get(ref_id)
        return work if work is not None and work.attempt == attempt and work.state == "leased" else None

    # --- private ---------------------------------------------------------------------------------------------

    def _batch(self) -> list[LiveWork]:
        works: list[LiveWork] = []
        size = passed = 0
        for work in self._outbox[:MAX_BATCH]:
            if work.state == "leased" and not work.over:
                size += len(work.envelope)
                if works and size > MAX_BATCH_BYTES:
                    break
                works.append(work)
            passed += 1
        del self._outbox[:passed]
        return works

    def _remember(self, session: str) -> None:
        self.sessions[session] = None
        if len(self.sessions) > MAX_SESSIONS:
            del self.sessions[next(iter(self.sessions))]

    def _lease(self, work: LiveWork, now_ms: int) -> None:
        work.state = "leased"
        work.lease_expires_ms = now_ms + LEASE_MS
        self.leased[work.work_id] = work

    def _give_back(self) -> None:
        # What a lost reply carried was never seen by the daemon: hand it over again, to the next poll.
        if self._unacked is None:
            return
        _, works, cancels = self._unacked
        self._unacked = None
        again = [work for work in works if work.state == "leased" and work.next_sequence == 0]
        for work in again:
            work.dispatched = False
        self._outbox[:0] = again
        self._cancels[:0] = cancels

    def wake(self) -> None:
        """Answer the held poll now."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
