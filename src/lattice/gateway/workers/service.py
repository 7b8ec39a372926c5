"""What workers ask of the gateway: polls, results and failures; and what happens to their work when they stop.

Here the links in memory, the rows of workers and queries, and money meet. A worker's contact is billed, a lease is
durable before it is handed over, and a query ends exactly once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import structlog
from sqlalchemy import Connection, update

from lattice.core.errors import LatticeError
from lattice.core.ids import b64url
from lattice.core.worker_relay import WORKER_FAIL_CODES, WorkerFail, WorkerPoll, WorkerReply, WorkerWork
from lattice.gateway.encrypted.blobs import BlobStore
from lattice.gateway.encrypted.event_rows import add_event
from lattice.gateway.encrypted.model_rows import find_model
from lattice.gateway.encrypted.version_rows import get_version
from lattice.gateway.ledger import credits
from lattice.gateway.queries import rows as query_rows
from lattice.gateway.queries.board import QueryBoard
from lattice.gateway.queries.rows import Delivery, Leased, QueryRow
from lattice.gateway.store.database import Store
from lattice.gateway.store.schema import access_tokens
from lattice.gateway.workers import billing, slices
from lattice.gateway.workers.clock import SteadyClock
from lattice.gateway.workers.link import WorkerLink
from lattice.gateway.workers.rows import Reason, WorkerRow, current_rate, get_worker, open_workers
from lattice.gateway.workers.slices import DRAIN_MS, SLICE_MS
from lattice.sealing.worker_receipt import read_worker_receipt

_log = structlog.get_logger("lattice.gateway.workers")

POLL_HOLD_MS = 5_000
"""Half a slice: what is sold is renewed long before it is over."""
STOPPING_HOLD_MS = 1_000
BEAT_MS = 1_000
"""An active worker's contacts are written down at most this often; a crash of the gateway forgives this much."""
LOW_BALANCE_MS = 600_000
"""A balance that covers less than this at the current rate is worth an event."""
MAX_RESULT_BYTES = 512 * 1024 * 1024


class Beat(msgspec.Struct, frozen=True):
    """What a contact came to."""

    row: WorkerRow
    leased: list[Leased]


class WorkerService:
    """All workers that talk to this gateway."""

    def __init__(
        self, store: Store, blobs: BlobStore, clock: SteadyClock, board: QueryBoard, blinding: Callable[[str], bytes]
    ) -> None:
        self._store, self._blobs, self._clock, self._board = store, blobs, clock, board
        self._blinding = blinding
        self.links: dict[str, WorkerLink] = {}
        self._artefacts: dict[tuple[str, int], str] = {}
        self._low: set[str] = set()
        self.on_stopped: list[Callable[[WorkerRow], None]] = []

    # --- polls ---------------------------------------------------------------------------------------------

    async def poll(
        self, row: WorkerRow, request: WorkerPoll, held: Callable[[Awaitable[None]], Awaitable[bool]]
    ) -> WorkerReply | None:
        """Answer a poll; `held` runs the wait and says whether the worker went away meanwhile (None then)."""
        try:
            return await self._poll(row, request, held)
        except LatticeError as error:
            if error.code != "worker_stopped":
                raise
            return WorkerReply(stop=error.details.get("reason") or "requested", worker=row.id)

    async def _poll(
        self, row: WorkerRow, request: WorkerPoll, held: Callable[[Awaitable[None]], Awaitable[bool]]
    ) -> WorkerReply | None:
        link = self.links.get(row.id)
        if link is None:
            row = await self._store.read(get_worker, row.id)
            if not row.open:
                return WorkerReply(stop=row.reason or "requested", worker=row.id)
            link = self.links.setdefault(row.id, WorkerLink(row))
        if link.superseded(request.session):
            return WorkerReply(stop="superseded", worker=row.id)
        first = link.session != request.session
        if first:
            await self._open_session(link, request)
        turn = link.begin(request, self._clock.now_ms())
        await self._beat(link, request)
        if request.ending and link.row.open:
            await self.end(row.id, "requested" if link.row.active_at_ms is not None else "failed", seen=True)
        # The first answer says what to load, so nobody waits for it.
        if not first and not link.has_news and link.row.open:
            if await held(link.wait(turn, self._hold_ms(link) / 1000)):
                return None
            if turn != link.turn:
                return await self._reply(link, news=False)
            await self._beat(link, request)
        return await self._reply(link, news=turn == link.turn)

    async def _open_session(self, link: WorkerLink, request: WorkerPoll) -> None:
        """The same process goes on with its leases after a restart of this gateway; another process starts afresh."""
        same = link.session is None and link.row.session == request.session
        kept, freed = await self._store.write(_take_over, link.row.id, same, self._clock.now_ms())
        link.open_session(request.session, kept)
        self._changed(freed)

    async def _beat(self, link: WorkerLink, request: WorkerPoll) -> None:
        """Bill the contact where it is due, and lease what there is room for; both in one transaction."""
        now = self._clock.now_ms()
        row = link.row
        due = (
            row.session != request.session
            or (row.state == "active") != request.active
            or now - link.beat_ms >= BEAT_MS
            or (row.paid_until_ms is not None and now >= row.paid_until_ms)
        )
        if not due and not link.free:
            return
        if not row.open:
            return
        slots = (request.concurrency if request.active else 0) if due else link.free
        beat = await self._store.write(_beat, link, request.session, request.active, slots, due, now)
        if due:
            link.beat_ms = now
            self._moved(link, beat.row)
        link.add(beat.leased)
        if beat.leased:
            link.busy_ms = now
            for each in beat.leased:
                self._board.changed(each.row)

    def _moved(self, link: WorkerLink, row: WorkerRow) -> None:
        before, link.row = link.row, row
        if before.state != row.state:
            _log.info("worker", worker=row.id, state=row.state, reason=row.reason)
            if row.state == "active":
                link.busy_ms = self._clock.now_ms()
        if row.state == "stopped" and before.open:
            asyncio.ensure_future(self._after_end(row))  # noqa: RUF006  it holds no resources and logs its failure

    def _hold_ms(self, link: WorkerLink) -> int:
        row = link.row
        if row.state == "stopping":
            return STOPPING_HOLD_MS
        if row.state == "active" and row.paid_until_ms is not None:
            return max(0, min(POLL_HOLD_MS, row.paid_until_ms - self._clock.now_ms()))
        return POLL_HOLD_MS

    async def _reply(self, link: WorkerLink, news: bool) -> WorkerReply:
        row = link.row
        fresh, cancels = link.take_news() if news and row.open else ([], ())
        stop = row.reason if row.state in ("stopping", "stopped") else None
        if stop is not None and news:
            link.told_stop = True
        return WorkerReply(
            paid_for_ms=self._paid_for_ms(row),
            work=tuple(_work(each) for each in fresh),
            cancel=cancels,
            stop=stop,
            artefact=await self._artefact(row.model_id, row.version),
            blinding=b64url(self._blinding(row.model_id)),
            worker=row.id,
            hold_ms=POLL_HOLD_MS,
        )

    def _paid_for_ms(self, row: WorkerRow) -> int:
        """The reserve is part of it: a worker that hears of a stop in time has all of it left to finish in."""
        if row.paid_until_ms is None or row.state not in ("active", "stopping"):
            return 0
        return max(0, min(SLICE_MS, row.paid_until_ms - self._clock.now_ms()) + DRAIN_MS)

    async def _artefact(self, model_id: str, version: int) -> str:
        found = self._artefacts.get((model_id, version))
        if found is None:
            row = await self._store.read(get_version, model_id, version)
            found = self._artefacts[model_id, version] = (row.artefact_sha256 or b"").hex()
        return found

    # --- results -------------------------------------------------------------------------------------------

    async def results(
        self, worker: WorkerRow, query_id: str, attempt: int, receipt: str, body: AsyncIterator[bytes]
    ) -> QueryRow:
        """Store a result, check its receipt, and end the query with it. Raises `lease_lost`, `receipt_invalid`."""
        leased = await self._store.read(_lease_of, worker.id, query_id, attempt)
        blob = await self._blobs.put(body, MAX_RESULT_BYTES)
        link = self.links.get(worker.id)
        _check_receipt(receipt, leased, blob.sha256, link.identity if link is not None else "")
        given = Delivery(query_id, worker.id, attempt, blob.sha256, blob.bytes, receipt.encode())
        done = await self._store.write(_deliver, given, worker.price_micro_per_second, self._clock.now_ms())
        self._freed(worker.id, query_id)
        self._changed([done])
        return done

    async def fail(self, worker: WorkerRow, said: WorkerFail) -> QueryRow:
        """An attempt ended without a result: another worker gets the query where that may help."""
        code = said.code if said.code in WORKER_FAIL_CODES else "runtime_failed"
        again = said.requeue or code == "runtime_failed"
        row = await self._store.write(
            query_rows.give_back, said.query, worker.id, said.attempt, code, self._clock.now_ms(), again=again
        )
        self._freed(worker.id, said.query)
        if row is None:
            raise LatticeError("lease_lost")
        self._changed([row])
        return row

    async def require_blob(self, worker: WorkerRow, sha256: bytes) -> None:
        """Raise `not_found` for bytes that are neither its model's nor those of a query that it has leased."""
        if sha256.hex() == await self._artefact(worker.model_id, worker.version):
            return
        link = self.links.get(worker.id)
        for each in link.leased.values() if link is not None else ():
            if sha256 in (each.row.input_sha256, each.keys_sha256, each.database_sha256):
                return
        raise LatticeError("not_found", "The worker has no lease that names these bytes.")

    # --- ends ----------------------------------------------------------------------------------------------

    async def stop(self, worker_id: str, reason: Reason) -> WorkerRow:
        """Ask a worker to drain and leave."""
        row = await self._store.write(billing.stop, worker_id, reason, self._clock.now_ms())
        await self._settled(row)
        return row

    async def end(self, worker_id: str, reason: Reason, *, seen: bool = False) -> WorkerRow:
        """A worker is gone."""
        row = await self._store.write(billing.end, worker_id, reason, self._clock.now_ms(), seen=seen)
        await self._settled(row)
        return row

    async def lost(self, worker_id: str) -> WorkerRow:
        """A worker's process died and another one will speak for it."""
        row = await self._store.write(billing.lost, worker_id, self._clock.now_ms())
        self._changed(await self._store.write(_release, worker_id, "runtime_failed", True, self._clock.now_ms()))
        link = self.links.get(worker_id)
        if link is not None:
            link.row = row
            link.leased.clear()
        return row

    async def _settled(self, row: WorkerRow) -> None:
        link = self.links.get(row.id)
        was_open = link.row.open if link is not None else True
        if link is not None:
            link.row = row
            link.wake()
        if not row.open and was_open:
            await self._after_end(row)

    async def _after_end(self, row: WorkerRow) -> None:
        """Its queries go elsewhere or end; once an account has no worker left and no credits, all of them end."""
        try:
            broke = row.reason == "credits_exhausted"
            code = "credits_exhausted" if broke else "runtime_failed"
            now = self._clock.now_ms()
            self._changed(await self._store.write(_release, row.id, code, not broke, now))
            if broke:
                self._changed(await self._store.write(_end_if_alone, row.account_id, now))
            await self._store.write(_tell_stopped, row, now)
        except LatticeError as error:
            _log.warning("after_end_failed", worker=row.id, code=error.code)
        self.links.pop(row.id, None)
        for told in self.on_stopped:
            told(row)

    def cancel(self, row: QueryRow) -> None:
        """A query ended from outside: tell its worker and whoever waits."""
        link = self.links.get(row.worker_id or "")
        if link is not None:
            link.drop(row.id, cancel=True)
        self._board.changed(row)

    # --- time ----------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Once in a while: end what is silent or late, and say where the credits run low."""
        now = self._clock.now_ms()
        for row in await self._store.write(billing.lapse, now):
            await self._settled(row)
        for swept in await self._store.write(query_rows.sweep, now):
            self._freed(swept.before.worker_id, swept.before.id, cancel=True)
            self._changed([swept.after])
        await self._warn_low(now)

    async def _warn_low(self, now: int) -> None:
        for account_id in {link.row.account_id for link in self.links.values() if link.row.state == "active"}:
            rate, available = await self._store.read(_standing, account_id)
            low = available * 1000 < rate * LOW_BALANCE_MS
            if low and account_id not in self._low:
                await self._store.write(_tell_low, account_id, available, rate, now)
            (self._low.add if low else self._low.discard)(account_id)

    def wake(self, model_id: str, version: int) -> None:
        """There is work for a model: the least loaded worker of it with room looks first."""
        fitting = [link for link in self.links.values() if (link.row.model_id, link.row.version) == (model_id, version)]
        for link in sorted(fitting, key=lambda link: -link.free):
            if link.free:
                link.wake()

    # --- private -------------------------------------------------------------------------------------------

    def _freed(self, worker_id: str | None, query_id: str, *, cancel: bool = False) -> None:
        link = self.links.get(worker_id or "")
        if link is not None:
            link.busy_ms = self._clock.now_ms()
            link.drop(query_id, cancel=cancel)
            link.wake()

    def _changed(self, changed: list[QueryRow]) -> None:
        for row in changed:
            self._board.changed(row)
            if row.state == "queued":
                self.wake(row.model_id, row.version)


# --- transactions ------------------------------------------------------------------------------------------


def _beat(conn: Connection, link: WorkerLink, session: str, active: bool, slots: int, due: bool, now_ms: int) -> Beat:
    row = link.row
    if due:
        row = billing.contact(conn, row.id, session, active, now_ms)
        if link.leased:
            query_rows.renew(conn, row.id, now_ms)
    if row.state != "active":
        return Beat(row, [])
    room = slots - len(link.leased) if due else slots
    return Beat(row, query_rows.lease(conn, row.id, row.model_id, row.version, room, link.cached, now_ms))


def _take_over(conn: Connection, worker_id: str, same: bool, now_ms: int) -> tuple[list[Leased], list[QueryRow]]:
    if not same:
        return [], _release(conn, worker_id, "runtime_failed", True, now_ms)
    return query_rows.leased_to(conn, worker_id), []


def _release(conn: Connection, worker_id: str, code: str, again: bool, now_ms: int) -> list[QueryRow]:
    freed = [
        query_rows.give_back(conn, row.id, worker_id, row.attempt, code, now_ms, again=again)
        for row in query_rows.leases_of(conn, worker_id)
    ]
    return [row for row in freed if row is not None]


def _end_if_alone(conn: Connection, account_id: str, now_ms: int) -> list[QueryRow]:
    if any(row.account_id == account_id for row in open_workers(conn)):
        return []
    return query_rows.end_open(conn, account_id, "credits_exhausted", now_ms)


def _deliver(conn: Connection, given: Delivery, micro_per_second: int, now_ms: int) -> QueryRow:
    before = query_rows.find_query(conn, given.query_id)
    row = query_rows.deliver(conn, given, now_ms)
    if before is not None and before.state == "in_flight":
        # Only for the token's budget: the time itself is the worker's, and has been billed as such.
        spent = row.measured().get("worker_ms", 0) - before.measured().get("worker_ms", 0)
        columns = access_tokens.c
        conn.execute(
            update(access_tokens)
            .where(columns.id == row.token_id)
            .values(
                spent_micro=columns.spent_micro + slices.cost(spent, micro_per_second),
                queries=columns.queries + (0 if row.open else 1),
            )
        )
    return row


def _standing(conn: Connection, account_id: str) -> tuple[int, int]:
    return current_rate(conn, account_id), credits(conn, account_id).available_micro


def _tell_low(conn: Connection, account_id: str, available: int, rate: int, now_ms: int) -> None:
    """To every model of the account that has an active worker, so that its streams and its webhook hear of it."""
    facts = {"available_micro": available, "micro_per_second": rate, "remaining_seconds": available // max(1, rate)}
    running = {row.model_id for row in open_workers(conn) if row.account_id == account_id and row.state == "active"}
    for model_id in sorted(running):
        model = find_model(conn, model_id)
        hooked = model is not None and model.webhook_url is not None
        add_event(conn, account_id, model_id, "credits.low", {"model": model_id, **facts}, now_ms, hooked=hooked)


def _tell_stopped(conn: Connection, row: WorkerRow, now_ms: int) -> None:
    model = find_model(conn, row.model_id)
    facts = {"model": row.model_id, "worker": row.id, "reason": row.reason, "billed_ms": row.billed_ms}
    hooked = model is not None and model.webhook_url is not None
    add_event(conn, row.account_id, row.model_id, "worker.stopped", facts, now_ms, hooked=hooked)


def _lease_of(conn: Connection, worker_id: str, query_id: str, attempt: int) -> Leased:
    row = query_rows.find_query(conn, query_id)
    if row is None or (row.worker_id, row.attempt) != (worker_id, attempt):
        raise LatticeError("lease_lost")
    return query_rows.with_hashes(conn, row)


def _check_receipt(text: str, leased: Leased, outputs: bytes, identity: str) -> None:
    """Whether it is about this attempt, the very bytes that the gateway named, and by the worker that has the lease."""
    receipt, work = read_worker_receipt(text), _work(leased)
    said = (receipt.query, receipt.attempt, receipt.inputs, receipt.keys, receipt.database, receipt.outputs)
    known = (work.id, work.attempt, work.inputs, work.evaluation_keys, work.database, outputs.hex())
    if said != known or (identity and receipt.identity != identity):
        raise LatticeError("receipt_invalid", "The receipt is not for this query, these bytes or this worker.")


def _work(leased: Leased) -> WorkerWork:
    row = leased.row
    return WorkerWork(
        id=row.id,
        attempt=row.attempt,
        inputs=row.input_sha256.hex(),
        evaluation_keys=leased.keys_sha256.hex(),
        deadline_ms=row.deadline_ms,
        database=leased.database_sha256.hex() if leased.database_sha256 else None,
    )
