"""The daemon's side of the relay: one poll open all the time, in sessions.

A broken connection opens a new session after a jittered pause. Work that runs goes on meanwhile, because its lease
belongs to this process (`instance`) and not to the session.
"""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import structlog

from lattice import __version__
from lattice.core.clock import Clock
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.core.relay import (
    LEASE_MS,
    POLL_HOLD_MS,
    PROTOCOL_VERSION,
    Announcement,
    PollReply,
    PollRequest,
    RefsRequest,
    WorkRef,
)
from lattice.runtime.board import ModelBoard
from lattice.runtime.transport import RelayDown, RelayTransport, jittered_backoff
from lattice.runtime.work_keys import WorkKeys
from lattice.runtime.work_table import Runner, WorkCounts, WorkTable

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

SKEW_WARNING_MS = 60_000
MAX_HOLD_MS = 120_000
_EMPTY_POLL_S = 0.05
_HELD_S = 0.5


class RelayStatus(msgspec.Struct):
    """What `lattice-ctl status` shows of the relay. `state`: connecting, connected, waiting, draining or stopped."""

    work: WorkCounts
    state: str = "connecting"
    problem: str | None = None
    session: str | None = None
    last_reply_ms: int = 0
    skew_ms: int = 0
    reconnects: int = 0


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
        self._keys = keys
        self._board = board
        self._clock = clock
        self._concurrency = concurrency
        self._lease_ms = lease_ms
        self._table = WorkTable(transport, runner, concurrency, queue)
        # Random for each process: the gateway knows by it whether our leases survived a reconnect.
        self._instance = new_id(Prefix.SESSION, clock.now_ms())
        self._draining = False
        self._open_poll: asyncio.Future[PollReply] | None = None
        self._announced: tuple[tuple[bytes, ...], int] | None = None
        self._tries = 0
        self._skew_told = False
        self._told = asyncio.Event()
        self.status = RelayStatus(self._table.counts)

    async def run(self) -> None:
        """Poll for ever. Raises the LatticeError that ended it: revoked, superseded, protocol."""
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
            await self._table.close()
            await self._transport.close()

    def announce(self) -> None:
        """Say at once what changed, by opening a new session; a held poll would keep it back for up to 20 seconds."""
        if self._open_poll is not None:
            self._open_poll.cancel()

    async def drain(self, limit_s: float = 30.0, hurry: asyncio.Event | None = None) -> None:
        """Take nothing new, finish what runs for up to `limit_s` or until `hurry`, give back the rest.

        Cancel `run` afterwards.
        """
        self._draining = True
        self.status.state = "draining"
        self._table.close_door()
        if self._open_poll is not None:
            self.announce()  # that this machine leaves
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), _HELD_S)
        await _first_of(limit_s, self._table.idle, hurry or asyncio.Event())
        self._table.give_back_all()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._table.idle.wait(), 2.0)

    # -- sessions ---------------------------------------------------------------------------------------------------

    async def _one_session(self) -> None:
        try:
            await self._poll_session()
        except RelayDown as down:
            await self._pause(down)
        except LatticeError as error:
            if error.code in FINAL_CODES:
                raise
            await self._pause(RelayDown(str(error)))
        except Exception as error:  # a full disk, say: it must not cut the machine off for good
            log.error("relay_mistake", kind=type(error).__name__)
            await self._pause(RelayDown(type(error).__name__))

    async def _poll_session(self) -> None:
        session = self.status.session = new_id(Prefix.SESSION, self._clock.now_ms())
        self._announced = None
        ack = 0
        hold_ms = POLL_HOLD_MS
        loop = asyncio.get_running_loop()
        while True:
            announce = self._announcement()
            request = PollRequest(PROTOCOL_VERSION, session, self._instance, ack, announce, self._draining)
            began = loop.time()
            reply = await self._poll(request, hold_ms)
            if reply is None:
                return
            if reply.ended:
                raise await self._why_ended()
            ack, hold_ms = reply.seq, min(reply.poll_hold_ms, MAX_HOLD_MS)
            # Frames name the last session that was answered in: a newer one may not have reached the gateway yet.
            self._table.session = session
            self._received(reply)
            self._table.take(reply, self.status.skew_ms)
            if reply.drain:
                raise RelayDown("the gateway restarts", 0.2)
            if not reply.works and not reply.cancels and loop.time() - began < _EMPTY_POLL_S:
                await asyncio.sleep(_EMPTY_POLL_S)  # a gateway that answers emptily at once is not to be spun at

    async def _why_ended(self) -> Exception:
        """Superseded, or revoked, or forgotten by a gateway: an empty renewal tells, and changes nothing."""
        try:
            await self._transport.renew(RefsRequest(self._table.session, ()))
        except (LatticeError, RelayDown) as error:
            return error
        return LatticeError("session_superseded", "Another daemon with this machine's pairing has connected.")

    async def _poll(self, request: PollRequest, hold_ms: int) -> PollReply | None:
        """The reply, or None when `announce` or `drain` cut the poll short."""
        self._open_poll = asyncio.ensure_future(self._transport.poll(request, hold_ms))
        if not self._draining and self.status.state != "connected":
            self.status.state = "connecting"
            asyncio.get_running_loop().call_later(_HELD_S, self._note_held, self._open_poll)
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
            if abs(self.status.skew_ms) > SKEW_WARNING_MS and not self._skew_told:
                self._skew_told = True
                log.warning("clock_skew", skew_ms=self.status.skew_ms, remedy="timedatectl set-ntp true")
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

    # -- leases -----------------------------------------------------------------------------------------------------

    async def _keep_leases(self) -> None:
        """Every third of a lease: renew what runs, give up what is past its deadline, look after the keys."""
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            self._table.expire(self._clock.now_ms())
            refs = self._table.refs()
            if refs:
                await self._renew(refs)
            self._rotate()

    def _rotate(self) -> None:
        try:
            if self._keys.rotate():
                self.announce()  # after a long sleep the gateway knows only keys that are gone
        except OSError as error:
            log.error("work_keys_not_saved", kind=type(error).__name__)

    async def _renew(self, refs: tuple[WorkRef, ...]) -> None:
        try:
            self._table.lost((await self._transport.renew(RefsRequest(self._table.session, refs))).lost)
        except RelayDown:
            return  # the poll notices too, and the next round asks again
        except LatticeError as error:
            if error.code == "lease_lost":  # the gateway was restarted and has voided what ran
                self._table.lost(refs)


async def _first_of(limit_s: float, *events: asyncio.Event) -> None:
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
