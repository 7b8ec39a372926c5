"""Every leased work from its arrival to its last word: the local queue, the slots, cancelling and giving back."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable
from typing import Protocol

import msgspec
import structlog

from lattice.core.errors import LatticeError
from lattice.core.relay import FAIL_CODES, FailRequest, FramesRequest, LeasedWork, PollReply, ResultFrame, WorkRef
from lattice.runtime.outbox import Outbox
from lattice.runtime.transport import RelayTransport, frames_url, jittered_backoff
from lattice.runtime.work import FrameSink

log = structlog.get_logger("lattice.work")

STARTS_PER_TURN = 8


class Runner(Protocol):
    """What executes a work; `WorkRunner`, or an instant one in benchmarks."""

    async def run(self, leased: LeasedWork, sink: FrameSink) -> None:
        """Answer into `sink`, or raise LatticeError."""
        ...


class WorkCounts(msgspec.Struct):
    """What the status shows of the works."""

    running: int = 0
    queued: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0


class _Work:
    """A leased work until its last word is delivered."""

    __slots__ = ("deadline_ms", "leased", "outbox", "task")

    def __init__(self, leased: LeasedWork, outbox: Outbox, deadline_ms: int) -> None:
        self.leased = leased
        self.outbox = outbox
        self.deadline_ms = deadline_ms
        self.task: asyncio.Task[None] | None = None


class WorkTable:
    """The works of one runtime. The connection keeps `session` current."""

    def __init__(self, transport: RelayTransport, runner: Runner, concurrency: int, queue: int) -> None:
        self._transport = transport
        self._runner = runner
        self._concurrency = concurrency
        self._queue_limit = queue
        self._works: dict[str, _Work] = {}
        self._waiting: deque[_Work] = deque()
        self._running = 0
        self._start_scheduled = False
        self._outboxes: dict[str, Outbox] = {}
        self._closing = False
        self.session = ""
        self.counts = WorkCounts()
        self.idle = asyncio.Event()
        self.idle.set()

    # -- what the connection tells --------------------------------------------------------------------------------

    def take(self, reply: PollReply, skew_ms: int) -> None:
        """Carry out a poll's reply: cancels first, then the new works. `skew_ms`: how far our clock is ahead."""
        for ref in reply.cancels:
            self._cancel(ref)
        if not reply.works:
            return
        outbox = self._outbox(frames_url(self._transport.base, reply.results_url))
        for leased in reply.works:
            self._admit(leased, outbox, leased.deadline_ms + skew_ms)
        self._start_some()

    def refs(self) -> tuple[WorkRef, ...]:
        """The works whose leases are to be kept."""
        return tuple(WorkRef(work.leased.work_id, work.leased.attempt) for work in self._works.values())

    def expire(self, now_ms: int) -> None:
        """Give up what is past its deadline: the gateway has told its caller long ago."""
        for work in [w for w in self._works.values() if now_ms >= w.deadline_ms]:
            self._drop(work)

    def close_door(self) -> None:
        """Take nothing new and give back what waits."""
        self._closing = True
        for work in self._waiting:
            self._give_back(work)
        self._waiting.clear()

    def give_back_all(self) -> None:
        """Stop everything and let the gateway hand it to somebody else, where it may."""
        for work in self._works.values():
            if work.task is not None:
                work.task.cancel()
            self._give_back(work)

    async def close(self) -> None:
        """Stop everything without a word."""
        tasks = [work.task for work in self._works.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for outbox in self._outboxes.values():
            await outbox.close()

    # -- what the outbox asks -------------------------------------------------------------------------------------

    def is_open(self, work_id: str, attempt: int) -> bool:
        """Whether anybody still waits for this attempt."""
        work = self._works.get(work_id)
        return work is not None and work.leased.attempt == attempt

    def lost(self, refs: Iterable[WorkRef]) -> None:
        """The gateway says that these leases are gone: stop computing for nobody."""
        for ref in refs:
            self._cancel(ref)

    def settled(self, work_id: str, attempt: int) -> None:
        """The last word was delivered."""
        if self.is_open(work_id, attempt):
            del self._works[work_id]
            if not self._works:
                self.idle.set()

    # -- one work ---------------------------------------------------------------------------------------------------

    def _admit(self, leased: LeasedWork, outbox: Outbox, deadline_ms: int) -> None:
        known = self._works.get(leased.work_id)
        if known is not None:
            if known.leased.attempt >= leased.attempt:
                return  # handed over twice because a reply was thought lost
            self._drop(known)
        work = _Work(leased, outbox, deadline_ms)
        self._works[leased.work_id] = work
        self.idle.clear()
        if self._closing:
            self._give_back(work)
        elif len(self._waiting) + self._running >= self._concurrency + self._queue_limit:
            self._fail(work, "queue_full", "The machine's own queue is full.")
        else:
            self._waiting.append(work)

    def _start_some(self) -> None:
        """Start waiting works, a few in each turn of the loop, so that first answers leave before last ones begin."""
        self._start_scheduled = False
        started = 0
        while self._waiting and self._running < self._concurrency:
            if started == STARTS_PER_TURN:
                self._start_soon()
                break
            work = self._waiting.popleft()
            self._running += 1
            started += 1
            work.task = asyncio.create_task(self._run(work))
            work.task.add_done_callback(self._ended)  # and not `finally`: a task cancelled early never runs
        self.counts.running, self.counts.queued = self._running, len(self._waiting)

    def _start_soon(self) -> None:
        if not self._start_scheduled:
            self._start_scheduled = True
            asyncio.get_running_loop().call_soon(self._start_some)

    async def _run(self, work: _Work) -> None:
        try:
            await self._runner.run(work.leased, work.outbox)
            self.counts.completed += 1
        except LatticeError as error:
            self._fail(work, error.code, error.message)
        except Exception as error:
            # The type only: an exception's text may quote a prompt.
            log.error("work_crashed", work=work.leased.work_id, kind=type(error).__name__)
            self._fail(work, "runtime_failed", "The daemon made a mistake.")

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._running -= 1
        self.counts.running = self._running
        if self._waiting:
            self._start_soon()

    def _give_back(self, work: _Work) -> None:
        self._fail(work, "engine_unavailable", "The machine is shutting down.", requeue=True)

    def _fail(self, work: _Work, code: str, message: str, *, requeue: bool = False) -> None:
        leased = work.leased
        if not self.is_open(leased.work_id, leased.attempt):
            return
        code = code if code in FAIL_CODES else "runtime_failed"
        self.counts.failed += 1
        log.info("work_failed", work=leased.work_id, attempt=leased.attempt, code=code)
        work.outbox.fail(FailRequest(self.session, leased.work_id, leased.attempt, code, message, requeue))

    def _cancel(self, ref: WorkRef) -> None:
        """Stop a work at once; whoever names it here knows already that it is over, so nobody is told."""
        work = self._works.get(ref.work_id)
        if work is not None and work.leased.attempt == ref.attempt:
            self.counts.cancelled += 1
            self._drop(work)

    def _drop(self, work: _Work) -> None:
        if work.task is not None:
            work.task.cancel()
        else:
            with contextlib.suppress(ValueError):
                self._waiting.remove(work)
        work.outbox.discard(work.leased.work_id)
        self.settled(work.leased.work_id, work.leased.attempt)

    def _outbox(self, url: str) -> Outbox:
        outbox = self._outboxes.get(url)
        if outbox is None:

            async def post(frames: tuple[ResultFrame, ...]) -> tuple[WorkRef, ...]:
                return (await self._transport.frames(url, FramesRequest(self.session, frames))).lost

            async def post_fail(failure: FailRequest) -> tuple[WorkRef, ...]:
                current = msgspec.structs.replace(failure, session=self.session)
                return (await self._transport.fail(current)).lost

            outbox = self._outboxes[url] = Outbox(self, post, post_fail, jittered_backoff)
        return outbox
