"""Workers' polls: a contact is billed where that is due, leases are durable before they are handed over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import structlog
from sqlalchemy import Connection

from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.core.worker_relay import WorkerPoll, WorkerReply, WorkerWork
from lattice.gateway.encrypted.blobs import BlobStore
from lattice.gateway.queries import rows as query_rows
from lattice.gateway.queries.rows import Leased, QueryRow
from lattice.gateway.workers import billing, rollout
from lattice.gateway.workers.endings import Endings, release
from lattice.gateway.workers.link import WorkerLink
from lattice.gateway.workers.news import tell_active
from lattice.gateway.workers.rollout import Offer, Programs, Step
from lattice.gateway.workers.rows import WorkerRow, get_worker
from lattice.gateway.workers.slices import DRAIN_MS, SLICE_MS
from lattice.gateway.workers.switchboard import Switchboard

_log = structlog.get_logger("lattice.gateway.workers")

POLL_HOLD_MS = 5_000
"""Half a slice: what is sold is renewed long before it is over."""
STOPPING_HOLD_MS = 1_000
BEAT_MS = 1_000
"""An active worker's contacts are written down at most this often; a crash of the gateway forgives this much."""

INLINE_BYTES = 2 * 1024 * 1024
"""Of queries in one reply; with base64 they stay within what a worker reads."""

Held = Callable[[Awaitable[None]], Awaitable[bool]]


class Contact(msgspec.Struct, frozen=True):
    """What a poll asks of its transaction: `room` is how much there is for leases."""

    session: str
    active: bool
    room: int
    programs: Programs
    due: bool
    now_ms: int


class Beat(msgspec.Struct, frozen=True):
    """What a contact came to."""

    row: WorkerRow
    leased: list[Leased]
    offer: Offer | None = None
    moved: list[QueryRow] = []
    ready: bool = True


class Polls:
    """Answers the one question that a worker always has open."""

    def __init__(
        self, board: Switchboard, blobs: BlobStore, endings: Endings, blinding: Callable[[str], bytes]
    ) -> None:
        self._board, self._blobs, self._endings, self._blinding = board, blobs, endings, blinding

    async def answer(self, row: WorkerRow, request: WorkerPoll, held: Held) -> WorkerReply | None:
        """Answer a poll; `held` runs the wait and says whether the worker went away meanwhile (None then)."""
        try:
            return await self._answer(row, request, held)
        except LatticeError as error:
            if error.code != "worker_stopped":
                raise
            return WorkerReply(stop=error.details.get("reason") or "requested", worker=row.id)

    async def _answer(self, row: WorkerRow, request: WorkerPoll, held: Held) -> WorkerReply | None:
        link = self._board.links.get(row.id)
        if link is None:
            row = await self._board.store.read(get_worker, row.id)
            if not row.open:
                return WorkerReply(stop=row.reason or "requested", worker=row.id)
            link = self._board.links.setdefault(row.id, WorkerLink(row))
        if link.superseded(request.session):
            return WorkerReply(stop="superseded", worker=row.id)
        first = link.session != request.session
        if first:
            await self._open_session(link, request)
        turn = link.begin(request, self._board.clock.now_ms())
        await self._beat(link, request)
        if request.ending and link.row.open:
            await self._endings.end(row.id, "requested" if link.row.active_at_ms is not None else "failed", seen=True)
        # The first answer says what to load, so nobody waits for it.
        if not first and not await self._held(link, request, turn, held):
            return None
        return await self._reply(link, news=turn == link.turn)

    async def _held(self, link: WorkerLink, request: WorkerPoll, turn: int, held: Held) -> bool:
        """Return when there is something to say, or it is time; False where the worker went away meanwhile."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._hold_ms(link) / 1000
        while not self._over(link, turn) and (left := until - loop.time()) > 0:
            if await held(link.wait(turn, left)):
                return False
            if not self._over(link, turn):
                await self._beat(link, request)
        return True

    def _over(self, link: WorkerLink, turn: int) -> bool:
        """Whether a held poll has something to say, or nobody to say it to."""
        return link.has_news or not link.row.open or turn != link.turn or self._board.closing

    async def _open_session(self, link: WorkerLink, request: WorkerPoll) -> None:
        """The same process goes on with its leases after a restart of this gateway; another process starts afresh."""
        same = link.session is None and link.row.session == request.session
        kept, freed = await self._board.store.write(_take_over, link.row.id, same, self._board.clock.now_ms())
        link.open_session(request.session, kept)
        self._board.changed(freed)

    async def _beat(self, link: WorkerLink, request: WorkerPoll) -> None:
        """Bill the contact where it is due, and lease what there is room for; both in one transaction."""
        now = self._board.clock.now_ms()
        row, said = link.row, Programs.of(request)
        due = (
            row.session != request.session
            or (row.state == "active") != request.active
            or now - link.beat_ms >= BEAT_MS
            or (row.paid_until_ms is not None and now >= row.paid_until_ms)
            or row.next_version is not None
            or link.programs != said
        )
        if not row.open or not (due or (link.free and self._board.behind(link))):
            return
        queued, room = self._board.queued(row), link.room()
        contact = Contact(request.session, request.active, room, said, due, now)
        with link.reserve(room):
            beat = await self._board.store.write(_beat, link, contact)
            if len(beat.leased) < room and beat.row.state == "active" and beat.ready:
                link.seen_empty = queued
            if due:
                link.beat_ms, link.programs, link.offer, link.ready = now, said, beat.offer, beat.ready
                self._moved(link, beat.row)
                self._board.changed(beat.moved)
            self._board.leased(row.id, beat.leased)

    def _moved(self, link: WorkerLink, row: WorkerRow) -> None:
        before, link.row = link.row, row
        if before.version != row.version:
            link.seen_empty = -1  # that was another queue
            _log.info("worker_version", worker=row.id, version=row.version, before=before.version)
        if before.state != row.state:
            _log.info("worker", worker=row.id, state=row.state, reason=row.reason)
            if row.state == "active":
                link.busy_ms = self._board.clock.now_ms()
        if row.state == "stopped" and before.open:
            asyncio.ensure_future(self._endings.after_end(row))  # noqa: RUF006  it holds no resources and logs its failure

    def _hold_ms(self, link: WorkerLink) -> int:
        row = link.row
        if row.state == "stopping":
            return STOPPING_HOLD_MS
        if row.state == "active" and row.paid_until_ms is not None:
            return max(0, min(POLL_HOLD_MS, row.paid_until_ms - self._board.clock.now_ms()))
        return POLL_HOLD_MS

    async def _reply(self, link: WorkerLink, news: bool) -> WorkerReply:
        row = link.row
        fresh, cancels = link.take_news() if news and row.open else ([], ())
        stop = row.reason if row.state in ("stopping", "stopped") else None
        if stop is not None and news:
            link.told_stop = True
        return WorkerReply(
            paid_for_ms=self._paid_for_ms(row),
            work=tuple([await self._work(each, data) for each, data in self._with_inputs(fresh, link.inline)]),
            cancel=cancels,
            stop=stop,
            artefact=await self._board.artefact(row.model_id, row.version) if news else "",
            next=link.offer.artefact if link.offer else "",
            next_version=link.offer.version if link.offer else 0,
            blinding=b64url(self._blinding(row.model_id)),
            worker=row.id,
            hold_ms=POLL_HOLD_MS,
        )

    def _with_inputs(self, fresh: list[Leased], inline: bool) -> Iterator[tuple[Leased, bytes]]:
        """Each lease with its query's bytes, as far as they are at hand and a reply has room for them."""
        room = INLINE_BYTES if inline else 0
        for each in fresh:
            fits = each.row.input_bytes <= room
            data = (self._blobs.take_recent(each.row.input_sha256) if fits else None) or b""
            room -= len(data)
            yield each, data

    async def _work(self, leased: Leased, data: bytes) -> WorkerWork:
        row = leased.row
        return WorkerWork(
            id=row.id,
            attempt=row.attempt,
            inputs=row.input_sha256.hex(),
            evaluation_keys=leased.keys_sha256.hex(),
            deadline_ms=row.deadline_ms,
            expires_in_ms=max(1, row.deadline_ms - self._board.clock.now_ms()),
            artefact=await self._board.artefact(row.model_id, row.version),
            database=leased.database_sha256.hex() if leased.database_sha256 else None,
            data=data,
        )

    def _paid_for_ms(self, row: WorkerRow) -> int:
        """The reserve is part of it: a worker that hears of a stop in time has all of it left to finish in."""
        if row.paid_until_ms is None or row.state not in ("active", "stopping"):
            return 0
        return max(0, min(SLICE_MS, row.paid_until_ms - self._board.clock.now_ms()) + DRAIN_MS)


def _beat(conn: Connection, link: WorkerLink, contact: Contact) -> Beat:
    row, now = link.row, contact.now_ms
    step = Step(row, link.offer, ready=link.ready)
    if contact.due:
        before, row = row, billing.contact(conn, row.id, contact.session, contact.active, now)
        if row.state == "active" != before.state:
            tell_active(conn, row, now)
        step = rollout.step(conn, row, contact.programs, now)
        row = step.row
        if link.leased:
            query_rows.renew(conn, row.id, now)
    leased = []
    if row.state == "active" and step.ready:
        leased = query_rows.lease(conn, row.id, row.model_id, row.version, contact.room, link.cached, now)
    return Beat(row, leased, step.offer, step.moved, step.ready)


def _take_over(conn: Connection, worker_id: str, same: bool, now_ms: int) -> tuple[list[Leased], list[QueryRow]]:
    if not same:
        return [], release(conn, worker_id, "runtime_failed", True, now_ms)
    return query_rows.leased_to(conn, worker_id), []
