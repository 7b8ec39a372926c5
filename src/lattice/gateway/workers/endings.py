"""How workers end: asked to, gone, silent for too long, or out of credits; and what becomes of their queries."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlalchemy import Connection

from lattice.core.errors import LatticeError
from lattice.gateway.encrypted.version_rows import VersionRow, ready_version
from lattice.gateway.ledger import credits
from lattice.gateway.queries import rows as query_rows
from lattice.gateway.queries.rows import QueryRow
from lattice.gateway.workers import billing, rollout
from lattice.gateway.workers.news import tell_low, tell_stopped
from lattice.gateway.workers.rows import Reason, WorkerRow, current_rate, open_workers
from lattice.gateway.workers.switchboard import Switchboard

_log = structlog.get_logger("lattice.gateway.workers")

LOW_BALANCE_MS = 600_000
"""A balance that covers less than this at the current rate is worth an event."""


class Endings:
    """Every way in which a worker stops, and the watch over those that say nothing."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board
        self._low: set[str] = set()
        self.on_stopped: list[Callable[[WorkerRow], None]] = []

    async def stop(self, worker_id: str, reason: Reason) -> WorkerRow:
        """Ask a worker to drain and leave."""
        row = await self._board.store.write(billing.stop, worker_id, reason, self._board.clock.now_ms())
        await self._settled(row)
        return row

    async def end(self, worker_id: str, reason: Reason, *, seen: bool = False) -> WorkerRow:
        """A worker is gone."""
        row = await self._board.store.write(billing.end, worker_id, reason, self._board.clock.now_ms(), seen=seen)
        await self._settled(row)
        return row

    async def lost(self, worker_id: str, *, crashed: bool = True) -> WorkerRow:
        """A worker's process died and another one will speak for it."""
        row = await self._board.store.write(billing.lost, worker_id, self._board.clock.now_ms(), crashed=crashed)
        self._board.changed(
            await self._board.store.write(release, worker_id, "runtime_failed", True, self._board.clock.now_ms())
        )
        link = self._board.links.get(worker_id)
        if link is not None:
            link.row = row
            link.forget()
        return row

    async def _settled(self, row: WorkerRow) -> None:
        link = self._board.links.get(row.id)
        was_open = link.row.open if link is not None else True
        if link is not None:
            link.row = row
            link.wake()
        if not row.open and was_open:
            await self.after_end(row)

    async def after_end(self, row: WorkerRow) -> None:
        """Its queries go elsewhere or end; once an account has no worker left and no credits, all of them end."""
        try:
            broke = row.reason == "credits_exhausted"
            code = "credits_exhausted" if broke else "runtime_failed"
            now = self._board.clock.now_ms()
            self._board.changed(await self._board.store.write(release, row.id, code, not broke, now))
            if broke:
                self._board.changed(await self._board.store.write(_end_if_alone, row.account_id, now))
            await self._board.store.write(tell_stopped, row, now)
        except LatticeError as error:
            _log.warning("after_end_failed", worker=row.id, code=error.code)
        self._board.links.pop(row.id, None)
        for told in self.on_stopped:
            told(row)

    async def sweep(self) -> None:
        """Once in a while: end what is silent or late, and say where the credits run low."""
        now = self._board.clock.now_ms()
        for row in await self._board.store.write(billing.lapse, now):
            await self._settled(row)
        for swept in await self._board.store.write(query_rows.sweep, now):
            self._board.freed(swept.before.worker_id, swept.before.id, cancel=True)
            self._board.changed([swept.after])
        self._board.changed(await self._board.store.write(rollout.rehome))
        await self._offer_versions()
        await self._warn_low(now)

    async def _offer_versions(self) -> None:
        """A version that became ready, wherever that was: its model's workers hear of it at once."""
        links = [link for link in self._board.links.values() if link.row.state == "active"]
        models = {link.row.model_id for link in links}
        newest = await self._board.store.read(_newest, models) if models else {}
        for link in links:
            offer = rollout.offered(link.row, newest.get(link.row.model_id))
            if link.row.next_version is not None or offer != link.offer:
                link.offer = offer
                link.wake()

    async def _warn_low(self, now: int) -> None:
        for account_id in {link.row.account_id for link in self._board.links.values() if link.row.state == "active"}:
            rate, available = await self._board.store.read(_standing, account_id)
            low = available * 1000 < rate * LOW_BALANCE_MS
            if low and account_id not in self._low:
                await self._board.store.write(tell_low, account_id, available, rate, now)
            (self._low.add if low else self._low.discard)(account_id)


def release(conn: Connection, worker_id: str, code: str, again: bool, now_ms: int) -> list[QueryRow]:
    freed = [
        query_rows.give_back(conn, row.id, worker_id, row.attempt, code, now_ms, again=again)
        for row in query_rows.leases_of(conn, worker_id)
    ]
    return [row for row in freed if row is not None]


def _end_if_alone(conn: Connection, account_id: str, now_ms: int) -> list[QueryRow]:
    if any(row.account_id == account_id for row in open_workers(conn)):
        return []
    return query_rows.end_open(conn, account_id, "credits_exhausted", now_ms)


def _newest(conn: Connection, models: set[str]) -> dict[str, VersionRow]:
    found = {model_id: ready_version(conn, model_id) for model_id in models}
    return {model_id: version for model_id, version in found.items() if version is not None}


def _standing(conn: Connection, account_id: str) -> tuple[int, int]:
    return current_rate(conn, account_id), credits(conn, account_id).available_micro
