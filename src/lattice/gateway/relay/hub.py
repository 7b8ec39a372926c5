"""Every runtime that polls this gateway and every work in flight here; leases, retries and what happens when one dies.

The hub is the only place where in-memory links and the durable work rows meet: it makes a lease durable before the
work is handed over, and it decides who gets another attempt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

import structlog

from lattice.core.clock import SECOND_MS, Clock
from lattice.core.errors import LatticeError
from lattice.core.relay import LEASE_MS, FramesRequest, RelayAck, WorkRef
from lattice.gateway.metrics import Metrics
from lattice.gateway.relay.leases import lease_all
from lattice.gateway.relay.link import Link
from lattice.gateway.relay.work import LiveWork
from lattice.gateway.store.database import Store
from lattice.gateway.works.rows import renew

_log = structlog.get_logger("lattice.gateway.relay")

SWEEP_SECONDS = 0.5


class Hub:
    """All links and live works of one gateway process."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics, gateway_id: str) -> None:
        self._store = store
        self.gateway_id = gateway_id
        self._clock = clock
        self._metrics = metrics
        self.links: dict[str, Link] = {}
        self.works: dict[str, LiveWork] = {}
        self.draining = False
        self._tasks: set[asyncio.Task[None]] = set()

    # --- the caller's side -----------------------------------------------------------------------------------

    def reserve(self, link: Link, work: LiveWork) -> None:
        """Take a slot or a queue place for a work that is about to be admitted. Raises `queue_full`, `draining`."""
        if self.draining:
            raise LatticeError("draining", retry_after_ms=2_000)
        link.admit(work, self._clock.now_ms())
        self.works[work.work_id] = work
        self._metrics.in_flight.inc()

    def dispatch(self, link: Link, work: LiveWork) -> None:
        """Hand over a work whose admission is committed."""
        if work.state == "leased":
            self._metrics.dispatched.inc()
            link.dispatch(work)

    def cancel(self, work: LiveWork) -> None:
        """The caller went away: stop the runtime and end the wait."""
        link = self.links.get(work.runtime_id)
        if link is not None and work.state == "leased":
            link.cancel(work)
        work.cancel()

    def end(self, work: LiveWork) -> None:
        """Forget a work, free its slot and lease what waited for it."""
        if self.works.pop(work.work_id, None) is None:
            return
        self._metrics.in_flight.dec()
        link = self.links.get(work.runtime_id)
        if link is None:
            work.state = "ended"
            return
        link.end(work)
        if link.queue:
            self._spawn(self.promote(link))

    # --- the daemon's side -----------------------------------------------------------------------------------

    async def promote(self, link: Link) -> None:
        """Lease queued works into free slots, durably, then hand them over."""
        promoted = link.promote(self._clock.now_ms())
        if promoted:
            await self._lease(link, promoted, again=False)

    def accept(self, link: Link, request: FramesRequest) -> RelayAck:
        """Take frames; the reply names the works whose lease is not, or no longer, the sender's."""
        if request.session not in link.sessions:
            return RelayAck(tuple({WorkRef(f.work_id, f.attempt) for f in request.frames}))
        lease_until = self._clock.now_ms() + LEASE_MS
        lost = set()
        for frame in request.frames:
            work = link.current(frame.work_id, frame.attempt)
            if work is None or not work.push(frame):
                lost.add(WorkRef(frame.work_id, frame.attempt))
            else:
                work.lease_expires_ms = lease_until
        return RelayAck(tuple(lost))

    async def renew(self, link: Link, refs: Iterable[WorkRef]) -> RelayAck:
        """Keep leases alive; the new end is durable before the daemon hears of it."""
        now = self._clock.now_ms()
        kept: list[LiveWork] = []
        lost: list[WorkRef] = []
        for ref in refs:
            work = link.current(ref.work_id, ref.attempt)
            if work is None:
                lost.append(ref)
            else:
                kept.append(work)
        if kept:
            await self._store.write(renew, [(w.work_id, w.attempt) for w in kept], now + LEASE_MS)
            for work in kept:
                work.lease_expires_ms = now + LEASE_MS
        return RelayAck(tuple(lost))

    async def give_back(self, link: Link, works: Iterable[LiveWork], error: LatticeError) -> None:
        """Start another attempt of each work that may have one; fail the others with `error`."""
        again = []
        for work in works:
            if work.state != "leased" or work.over:
                continue  # it has ended, or is on its way to another attempt already
            if work.may_retry and link.reachable(self._clock.now_ms()):
                work.state = "queued"  # from here on, frames of the old attempt come too late
                again.append(work)
            else:
                work.fail(error)
        if again:
            await self._lease(link, again, again=True)

    def drop(self, runtime_id: str, why: str = "was revoked") -> None:
        """The runtime was revoked or paired anew: end its session and fail its work."""
        link = self.links.pop(runtime_id, None)
        if link is None:
            return
        link.close()
        for work in [*link.leased.values(), *link.queue]:
            work.fail(LatticeError("runtime_unreachable", f"{runtime_id} {why}."))

    # --- time ------------------------------------------------------------------------------------------------

    async def sweep_forever(self) -> None:
        """Enforce leases, deadlines and reachability until cancelled."""
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self.sweep()
            except LatticeError as error:
                _log.warning("sweep_failed", code=error.code)

    async def sweep(self) -> None:
        """One pass over everything in flight."""
        now = self._clock.now_ms()
        reachable = 0
        for link in list(self.links.values()):
            reachable += link.reachable(now)
            if link.gone(now):
                self._fail_all(link, now)
                continue
            for work in [*link.leased.values(), *link.queue]:
                if work.deadline_ms <= now and not work.over:
                    link.cancel(work)
                    work.fail(LatticeError("personal_lattice_execution_timeout"))
            expired = [work for work in link.leased.values() if work.lease_expires_ms <= now]
            if expired:
                await self.give_back(link, expired, LatticeError("runtime_failed", "The machine let its lease expire."))
        self._metrics.runtimes.set(reachable)

    def _fail_all(self, link: Link, now: int) -> None:
        seconds = (now - link.last_poll_ms) // SECOND_MS
        for work in [*link.leased.values(), *link.queue]:
            if work.dispatched:
                work.fail(LatticeError("runtime_failed", f"The machine's daemon stopped polling {seconds} s ago."))
            else:
                work.fail(LatticeError("runtime_unreachable", f"No daemon polls for {link.runtime_id}."))

    async def drain(self, seconds: float) -> None:
        """Refuse new work, tell daemons, and wait for what runs."""
        self.draining = True
        for link in self.links.values():
            link.wake()
        deadline = asyncio.get_running_loop().time() + seconds
        while self.works and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(0.02)
        for work in list(self.works.values()):
            work.fail(LatticeError("draining"))

    # --- private ---------------------------------------------------------------------------------------------

    async def _lease(self, link: Link, works: list[LiveWork], again: bool) -> None:
        until = self._clock.now_ms() + LEASE_MS
        refs = [work.ref for work in works]
        try:
            attempts = await self._store.write(lease_all, refs, self.gateway_id, until, again)
        except LatticeError as error:
            for work in works:
                work.fail(error)
            return
        for work, attempt in zip(works, attempts, strict=True):
            if attempt is None:
                work.fail(LatticeError("lease_lost"))
            else:
                work.begin_attempt(attempt)
                if work.over:
                    continue  # its caller went away meanwhile; `abandon` ends the new attempt
                work.state = "leased"
                work.lease_expires_ms = until
                self.dispatch(link, work)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
