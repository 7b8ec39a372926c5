"""What workers hand in: results with their receipts, failures; and which bytes they may fetch for them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy import Connection

from lattice.core.errors import LatticeError
from lattice.core.worker_relay import WORKER_FAIL_CODES, WorkerFail
from lattice.gateway.encrypted.blobs import BlobStore
from lattice.gateway.encrypted.version_rows import has_artefact
from lattice.gateway.queries import rows as query_rows
from lattice.gateway.queries import spending
from lattice.gateway.queries.rows import Delivery, Leased, QueryRow
from lattice.gateway.workers.link import WorkerLink
from lattice.gateway.workers.rows import WorkerRow
from lattice.gateway.workers.switchboard import Switchboard
from lattice.sealing.worker_receipt import read_worker_receipt

MAX_RESULT_BYTES = 512 * 1024 * 1024


class Deliveries:
    """The ends of attempts, as their workers tell them."""

    def __init__(self, board: Switchboard, blobs: BlobStore) -> None:
        self._board, self._blobs = board, blobs

    async def results(
        self, worker: WorkerRow, query_id: str, attempt: int, receipt: str, body: AsyncIterator[bytes], size: int | None
    ) -> QueryRow:
        """Store a result (of `size` bytes, where that was announced), check its receipt, and end the query with it.

        Raises `lease_lost`, `receipt_invalid`.
        """
        link = self._board.links.get(worker.id)
        held = link.leased.get(query_id) if link is not None else None
        if held is None or held.row.attempt != attempt:
            held = await self._board.store.read(_lease_of, worker.id, query_id, attempt)
        blob = await self._blobs.put_any(body, size, MAX_RESULT_BYTES)
        _check_receipt(receipt, held, blob.sha256, link.identity if link is not None else "")
        began = link.began_ms(query_id) if link is not None else 0
        given = Delivery(query_id, worker.id, attempt, blob.sha256, blob.bytes, receipt.encode(), began)
        return await self._deliver(worker, given, link)

    async def _deliver(self, worker: WorkerRow, given: Delivery, link: WorkerLink | None) -> QueryRow:
        """End the query, and lease the worker its next one in the same transaction."""
        now, price = self._board.clock.now_ms(), worker.price_micro_per_second
        if link is None or link.row.state != "active" or not link.ready or not self._board.behind(link):
            done = await self._board.store.write(_deliver, given, price, now)
            self._board.freed(worker.id, given.query_id)
        else:
            queued, room = self._board.queued(link.row), link.room()
            with link.reserve(room):
                done, leased = await self._board.store.write(_deliver_and_lease, given, price, link, room + 1, now)
                self._board.freed(worker.id, given.query_id)
                if len(leased) <= room:
                    link.seen_empty = queued
                self._board.leased(worker.id, leased)
        self._board.changed([done])
        return done

    async def fail(self, worker: WorkerRow, said: WorkerFail) -> QueryRow:
        """An attempt ended without a result: another worker gets the query where that may help."""
        code = said.code if said.code in WORKER_FAIL_CODES else "runtime_failed"
        again = said.requeue or code == "runtime_failed"
        row = await self._board.store.write(
            query_rows.give_back, said.query, worker.id, said.attempt, code, self._board.clock.now_ms(), again=again
        )
        self._board.freed(worker.id, said.query)
        if row is None:
            raise LatticeError("lease_lost")
        self._board.changed([row])
        return row

    async def require_blob(self, worker: WorkerRow, sha256: bytes) -> None:
        """Raise `not_found` for bytes that are neither its model's nor those of a query that it has leased."""
        if await self._board.store.read(has_artefact, worker.model_id, sha256):
            return
        link = self._board.links.get(worker.id)
        # A worker that goes on after a restart of this gateway may fetch before it polls.
        held = (
            link.leased.values() if link is not None else await self._board.store.read(query_rows.leased_to, worker.id)
        )
        for each in held:
            if sha256 in (each.row.input_sha256, each.keys_sha256, each.database_sha256):
                return
        raise LatticeError("not_found", "The worker has no lease that names these bytes.")


def _lease_of(conn: Connection, worker_id: str, query_id: str, attempt: int) -> Leased:
    row = query_rows.find_query(conn, query_id)
    if row is None or (row.worker_id, row.attempt) != (worker_id, attempt):
        raise LatticeError("lease_lost")
    return query_rows.with_hashes(conn, row)


def _check_receipt(text: str, leased: Leased, outputs: bytes, identity: str) -> None:
    """Whether it is about this attempt, the very bytes that the gateway named, and by the worker that has the lease."""
    receipt, row = read_worker_receipt(text), leased.row
    database = leased.database_sha256.hex() if leased.database_sha256 else None
    said = (receipt.query, receipt.attempt, receipt.inputs, receipt.keys, receipt.database, receipt.outputs)
    known = (row.id, row.attempt, row.input_sha256.hex(), leased.keys_sha256.hex(), database, outputs.hex())
    if said != known or (identity and receipt.identity != identity):
        raise LatticeError("receipt_invalid", "The receipt is not for this query, these bytes or this worker.")


def _deliver_and_lease(
    conn: Connection, given: Delivery, micro_per_second: int, link: WorkerLink, room: int, now_ms: int
) -> tuple[QueryRow, list[Leased]]:
    done, row = _deliver(conn, given, micro_per_second, now_ms), link.row
    if not query_rows.seated(conn, row.id, row.version):
        return done, []
    return done, query_rows.lease(conn, row.id, row.model_id, row.version, room, link.cached, now_ms)


def _deliver(conn: Connection, given: Delivery, micro_per_second: int, now_ms: int) -> QueryRow:
    before = query_rows.find_query(conn, given.query_id)
    row = query_rows.deliver(conn, given, now_ms)
    if before is not None and before.state == "in_flight":
        spending.charge(conn, before, row, micro_per_second)
    return row
