"""The daemon's side of the relay: sessions of polls, and the life of each leased work from lease to last word.

One poll is open all the time. A broken connection opens a new session after a jittered pause; work that runs goes on
meanwhile, because its lease belongs to the runtime and not to the session.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Iterable
from typing import Protocol

import msgspec
import structlog

from lattice import __version__
from lattice.core.clock import Clock
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.core.relay import (
    FAIL_CODES,
    LEASE_MS,
    POLL_HOLD_MS,
    PROTOCOL_VERSION,
    Announcement,
    FailRequest,
    FramesRequest,
    LeasedWork,
    PollReply,
    PollRequest,
    RefsRequest,
    ResultFrame,
    WorkRef,
)
from lattice.runtime.board import ModelBoard
from lattice.runtime.outbox import Outbox
from lattice.runtime.transport import RelayDown, RelayTransport, frames_url
from lattice.runtime.work import FrameSink
from lattice.runtime.work_keys import WorkKeys

log = structlog.get_logger("lattice.relay")

FINAL_CODES = frozenset(
    {
        "insufficient_scopes",
        "invalid_credential",
        "invalid_request",
        "personal_lattice_not_found",
        "protocol_unsupported",
        "revoked_grant",
        "session_superseded",
    }
)
"""Refusals that stay as they are however often one asks. `lease_lost`, for one, only asks for a new session."""

BACKOFF_BASE_S = 0.25
BACKOFF_CAP_S = 30.0
STARTS_PER_TURN = 8
_EMPTY_POLL_S = 0.05


class Runner(Protocol):
    """What executes a work; `WorkRunner`, or an instant one in benchmarks."""

    async def run(self, leased: LeasedWork, sink: FrameSink) -> None:
        """Answer into `sink`, or raise LatticeError."""
        ...


class RelayStatus(msgspec.Struct):
    """What `lattice-ctl status` shows of the relay. `state`: connecting, connected, waiting, draining or stopped."""

    state: str = "connecting"
    problem: str | None = None
    session: str | None = None
    last_reply_ms: int = 0
    skew_ms: int = 0
    running: int = 0
    queued: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    reconnects: int = 0


class _Work:
    """A leased work until its last word is delivered."""

    __slots__ = ("deadline_ms", "leased", "outbox", "task")

    def __init__(self, leased: LeasedWork, outbox: Outbox, deadline_ms: int) -> None:
        self.leased = leased
        self.outbox = outbox
        self.deadline_ms = deadline_ms
        self.task: asyncio.Task[None] | None = None

    @property
    def ref(self) -> WorkRef:
        return WorkRef(self.leased.work_id, self.leased.attempt)


def jittered_backoff(tries: int) -> float:
    """Exponential back-off with full jitter, so that a restarted gateway is not met by every daemon at once."""
    return random.uniform(0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2 ** min(tries, 10)))  # noqa: S311


class RelayConnection:
    """Keeps one runtime connected. `run` goes on until it is cancelled, or raises what makes going on pointless."""

    def __init__(
        self,
        *,
        transport: RelayTransport,
        runner: Runner,
        keys: WorkKeys,
        board: ModelBoard,
        clock: Clock,
        concurrency: int = 1,
        queue: int = 32,
        lease_ms: int = LEASE_MS,
    ) -> None:
        self._transport = transport
        self._runner = runner
        self._keys = keys
        self._board = board
        self._clock = clock
        self._concurrency = concurrency
        self._queue_limit = queue
        self._lease_ms = lease_ms
        # Random for each process: the gateway knows by it whether our leases survived a reconnect.
        self._instance = new_id(Prefix.SESSION, clock.now_ms())
        # The last session that the gateway has answered in; frames name it, since a newer one may not have arrived.
        self._session = ""
        self._works: dict[str, _Work] = {}
        self._waiting: deque[_Work] = deque()
        self._running = 0
        self._starting = False
        self._outboxes: dict[str, Outbox] = {}
        self._draining = False
        self._open_poll: asyncio.Future[PollReply] | None = None
        self._announced: tuple[tuple[bytes, ...], int] | None = None
        self._tries = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._told = asyncio.Event()
        self.status = RelayStatus()

    async def run(self) -> None:
        """Poll until drained. Raises the LatticeError that ended it: revoked, superseded, protocol."""
        self._transport.open()
        keeper = asyncio.create_task(self._keep_leases())
        try:
            while True:
                await self._one_session()
        except LatticeError as error:
            self.status.state, self.status.problem = "stopped", str(error)
            raise
        finally:
            keeper.cancel()
            await self._shut()

    async def _one_session(self) -> None:
        try:
            await self._poll_session()
        except RelayDown as down:
            await self._pause(down)
        except LatticeError as error:
            if error.code in FINAL_CODES:
                raise
            await self._pause(RelayDown(str(error)))

    def announce(self) -> None:
        """Say at once what changed, by opening a new session; a held poll would keep it back for up to 20 seconds."""
        if self._open_poll is not None:
            self._open_poll.cancel()

    async def drain(self, limit_s: float = 30.0) -> None:
        """Take nothing new, finish what runs for up to `limit_s`, give back the rest. Cancel `run` afterwards."""
        self._draining = True
        self.status.state = "draining"
        for work in tuple(self._waiting):
            self._fail(work, "engine_unavailable", "The machine is shutting down.", requeue=True)
        self._waiting.clear()
        if self._open_poll is not None:
            self.announce()  # that this machine leaves
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), 0.5)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), limit_s)
        for work in tuple(self._works.values()):
            if work.task is not None:
                work.task.cancel()
            self._fail(work, "engine_unavailable", "The machine is shutting down.", requeue=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), 2.0)

    # -- polling ------------------------------------------------------------------------------------------------

    async def _poll_session(self) -> None:
        session = self.status.session = new_id(Prefix.SESSION, self._clock.now_ms())
        self._announced = None
        ack = 0
        hold_ms = POLL_HOLD_MS
        while True:
            request = PollRequest(PROTOCOL_VERSION, session, self._instance, ack, self._announcement(), self._draining)
            began = asyncio.get_running_loop().time()
            reply = await self._poll(request, hold_ms)
            if reply is None:
                return
            if reply.ended:
                raise LatticeError("session_superseded", "Another daemon with this machine's pairing has connected.")
            self._session, ack, hold_ms = session, reply.seq, reply.poll_hold_ms
            self._received(reply)
            self._take(reply)
            if reply.drain:
                raise RelayDown("the gateway restarts", 0.2)
            if not reply.works and not reply.cancels and asyncio.get_running_loop().time() - began < _EMPTY_POLL_S:
                await asyncio.sleep(_EMPTY_POLL_S)  # a gateway that answers emptily at once is not to be spun at

    async def _poll(self, request: PollRequest, hold_ms: int) -> PollReply | None:
        """The reply, or None when `announce` or `drain` cut the poll short."""
        self._open_poll = asyncio.ensure_future(self._transport.poll(request, hold_ms))
        if not self._draining and self.status.state != "connected":
            self.status.state = "connecting"
            asyncio.get_running_loop().call_later(0.5, self._note_held, self._open_poll)
        try:
            return await self._open_poll
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return None
        finally:
            self._open_poll = None

    def _note_held(self, poll: asyncio.Future[PollReply]) -> None:
        """A poll that is still open after half a second was accepted: refusals come at once."""
        if poll is self._open_poll and not self._draining:
            self.status.state, self.status.problem = "connected", None

    def _announcement(self) -> Announcement | None:
        """What to say of ourselves, if the gateway has not heard it in this session."""
        self._keys.rotate()
        current = (self._keys.announcement, self._board.version)
        if current == self._announced:
            return None
        self._announced = current
        return Announcement(current[0], self._board.offers, self._concurrency, __version__)

    def _received(self, reply: PollReply) -> None:
        self._tries = 0
        now_ms = self._clock.now_ms()
        self.status.last_reply_ms = now_ms
        if reply.now_ms:
            self.status.skew_ms = now_ms - reply.now_ms
        if self._draining:
            self._told.set()
        else:
            self.status.state, self.status.problem = "connected", None

    async def _pause(self, down: RelayDown) -> None:
        pause = max(jittered_backoff(self._tries), down.retry_after_s)
        self._tries += 1
        self.status.reconnects += 1
        if not self._draining:
            self.status.state, self.status.problem = "waiting", str(down)
        log.info("relay_reconnect", reason=str(down), pause_ms=int(pause * 1000))
        await asyncio.sleep(pause)

    # -- works --------------------------------------------------------------------------------------------------

    def _take(self, reply: PollReply) -> None:
        for ref in reply.cancels:
            self._cancel(ref)
        if not reply.works:
            return
        outbox = self._outbox(frames_url(self._transport.base, reply.results_url))
        for leased in reply.works:
            self._admit(leased, outbox)
        self._start_some()

    def _admit(self, leased: LeasedWork, outbox: Outbox) -> None:
        known = self._works.get(leased.work_id)
        if known is not None:
            if known.leased.attempt >= leased.attempt:
                return
            self._drop(known)
        work = _Work(leased, outbox, leased.deadline_ms + self.status.skew_ms)
        self._works[leased.work_id] = work
        self._idle.clear()
        if self._draining:
            self._fail(work, "engine_unavailable", "The machine is shutting down.", requeue=True)
        elif len(self._waiting) + self._running >= self._concurrency + self._queue_limit:
            self._fail(work, "queue_full", "The machine's own queue is full.")
        else:
            self._waiting.append(work)

    def _start_some(self) -> None:
        """Start waiting works, a few in each turn of the loop, so that first answers leave before last ones begin."""
        self._starting = False
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
        self.status.running, self.status.queued = self._running, len(self._waiting)

    def _start_soon(self) -> None:
        if not self._starting:
            self._starting = True
            asyncio.get_running_loop().call_soon(self._start_some)

    async def _run(self, work: _Work) -> None:
        try:
            await self._runner.run(work.leased, work.outbox)
            self.status.completed += 1
        except LatticeError as error:
            self._fail(work, error.code, error.message)
        except Exception as error:
            # The type only: an exception's text may quote a prompt.
            log.error("work_crashed", work=work.leased.work_id, kind=type(error).__name__)
            self._fail(work, "runtime_failed", "The daemon made a mistake.")

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._running -= 1
        self.status.running = self._running
        if self._waiting:
            self._start_soon()

    def _fail(self, work: _Work, code: str, message: str, *, requeue: bool = False) -> None:
        if code not in FAIL_CODES:
            code = "runtime_failed"
        if not self.is_open(work.leased.work_id, work.leased.attempt):
            return
        self.status.failed += 1
        log.info("work_failed", work=work.leased.work_id, attempt=work.leased.attempt, code=code)
        work.outbox.fail(FailRequest(self._session, work.leased.work_id, work.leased.attempt, code, message, requeue))

    def _cancel(self, ref: WorkRef) -> None:
        """Stop a work at once; whoever names it here knows already that it is over, so nobody is told."""
        work = self._works.get(ref.work_id)
        if work is not None and work.leased.attempt == ref.attempt:
            self.status.cancelled += 1
            self._drop(work)

    def _drop(self, work: _Work) -> None:
        if work.task is not None:
            work.task.cancel()
        else:
            with contextlib.suppress(ValueError):
                self._waiting.remove(work)
        work.outbox.discard(work.leased.work_id)
        self.settled(work.leased.work_id, work.leased.attempt)

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
                self._idle.set()

    def _outbox(self, url: str) -> Outbox:
        outbox = self._outboxes.get(url)
        if outbox is None:

            async def post(frames: tuple[ResultFrame, ...]) -> tuple[WorkRef, ...]:
                return (await self._transport.frames(url, FramesRequest(self._session, frames))).lost

            async def post_fail(failure: FailRequest) -> tuple[WorkRef, ...]:
                current = msgspec.structs.replace(failure, session=self._session)
                return (await self._transport.fail(current)).lost

            outbox = self._outboxes[url] = Outbox(self, post, post_fail, jittered_backoff)
        return outbox

    # -- leases ---------------------------------------------------------------------------------------------------

    async def _keep_leases(self) -> None:
        """Renew what runs every third of a lease, and give up what is past its deadline."""
        interval = self._lease_ms / 3000
        while True:
            await asyncio.sleep(interval)
            if self._keys.rotate():
                self.announce()  # after a long sleep the gateway knows only keys that are gone
            now_ms = self._clock.now_ms()
            for work in [w for w in self._works.values() if now_ms >= w.deadline_ms]:
                self._drop(work)
            refs = tuple(work.ref for work in self._works.values())
            if refs:
                with contextlib.suppress(RelayDown, LatticeError):
                    self.lost((await self._transport.renew(RefsRequest(self._session, refs))).lost)

    async def _shut(self) -> None:
        tasks = [work.task for work in self._works.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for outbox in self._outboxes.values():
            await outbox.close()
        await self._transport.close()
