"""How a new version reaches workers that run: prepare it beside, then switch, and strand no query.

A worker is offered the newest version that is ready. It loads that beside the one it serves and says so with its polls;
where it has no memory for both it says that instead. Then its row's version changes, in the transaction of that
contact, if the queries that still wait for the old version have enough other workers, or may run on the new one as
they are. Otherwise it stays, new queries are queued for the new version, and it leaves when the old queue is empty.
"""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection

from lattice.core.worker_relay import WorkerPoll
from lattice.gateway.encrypted.event_rows import add_event
from lattice.gateway.encrypted.model_rows import find_model
from lattice.gateway.encrypted.version_rows import (
    VersionRow,
    get_version,
    lock_versions,
    previous_ready,
    ready_version,
)
from lattice.gateway.queries import rows as query_rows
from lattice.gateway.queries.rows import QueryRow
from lattice.gateway.workers.rows import WorkerRow, get_worker, open_workers, set_worker
from lattice.gateway.workers.standing import standings

MAX_PROGRAMS = 8
MAX_REASON = 64


class Programs(msgspec.Struct, frozen=True):
    """What a worker says of the programs that it was named, by their artefacts' hashes."""

    loaded: frozenset[str] = frozenset()
    no_room: str = ""
    rejected: str = ""
    reason: str = ""

    @classmethod
    def of(cls, poll: WorkerPoll) -> Programs:
        """Of a poll, bounded."""
        reason = "".join(letter for letter in poll.rejected_because if letter.isalnum() or letter == "_")
        return cls(frozenset(poll.loaded[:MAX_PROGRAMS]), poll.no_room, poll.rejected, reason[:MAX_REASON])


class Offer(msgspec.Struct, frozen=True):
    """What a worker shall load next."""

    version: int
    artefact: str


class Step(msgspec.Struct, frozen=True):
    """A worker's row after a contact, what it is offered, and the queries that changed their version with it."""

    row: WorkerRow
    offer: Offer | None = None
    moved: list[QueryRow] = []
    ready: bool = True
    """False while it makes room for its version's program: nothing is leased to it then."""


def step(conn: Connection, row: WorkerRow, said: Programs, now_ms: int) -> Step:
    """Note what the worker could not load, switch it where that strands nothing, and say what it shall load next."""
    found = _step(conn, row, said, now_ms)
    if said.no_room not in ("", *said.loaded) and said.no_room == _artefact(
        get_version(conn, found.row.model_id, found.row.version)
    ):
        return msgspec.structs.replace(found, ready=False)
    return found


def _step(conn: Connection, row: WorkerRow, said: Programs, now_ms: int) -> Step:
    if row.state not in ("starting", "active"):
        return Step(row)
    row = _note_failure(conn, row, said, now_ms)
    newest = ready_version(conn, row.model_id)
    offer = offered(row, newest)
    if newest is None or offer is None or offer.artefact not in (*said.loaded, said.no_room):
        return Step(_set(conn, row, next_version=None), offer)
    moved = _leave(conn, row, newest)
    if moved is None:
        return Step(_set(conn, row, next_version=newest.number), offer)
    return Step(_set(conn, row, version=newest.number, next_version=None), None, moved)


def offered(row: WorkerRow, newest: VersionRow | None) -> Offer | None:
    """The newest version that is ready, where it is newer than the worker's and did not fail there."""
    if newest is None or newest.number <= row.version or newest.number == row.failed_version:
        return None
    return Offer(newest.number, _artefact(newest))


def rehome(conn: Connection) -> list[QueryRow]:
    """Queues whose workers are gone, for whatever reason, go to an interchangeable version that is served."""
    moved: list[QueryRow] = []
    for queue in query_rows.waiting(conn):
        needed = query_rows.workers_needed(conn, queue.model_id, queue.version)
        if _count(conn, queue.model_id, queue.version, ("starting", "active")) >= needed:
            continue
        old = get_version(conn, queue.model_id, queue.version)
        fitting = [
            each
            for each in standings(conn, queue.model_id)
            if each.coming >= needed and each.version.number != old.number and each.version.interchangeable(old)
        ]
        if fitting:
            lock_versions(conn, queue.model_id)
            to = max(fitting, key=lambda each: each.rank(needed)).version.number
            moved += query_rows.move_queued(conn, queue.model_id, queue.version, to)
    return moved


# --- private -------------------------------------------------------------------------------------------------


def _note_failure(conn: Connection, row: WorkerRow, said: Programs, now_ms: int) -> WorkerRow:
    """A program that cannot be loaded: the provider hears of it, and a worker that dropped the old one gets it back.

    What was queued for the new one meanwhile is `rehome`'s affair.
    """
    if not said.rejected:
        return row
    now = get_version(conn, row.model_id, row.version)
    newest = ready_version(conn, row.model_id)
    if newest is not None and offered(row, newest) is not None and said.rejected == _artefact(newest):
        _tell_failed(conn, row, newest.number, said.reason, now_ms)
        return _set(conn, row, failed_version=newest.number, next_version=None)
    before = previous_ready(conn, row.model_id, row.version)
    if said.rejected != _artefact(now) or before is None:
        return row
    _tell_failed(conn, row, now.number, said.reason, now_ms)
    return _set(conn, row, version=before.number, failed_version=now.number, next_version=None)


def _leave(conn: Connection, row: WorkerRow, to: VersionRow) -> list[QueryRow] | None:
    """What was queued for the old version and goes along; None where the worker must stay for it."""
    lock_versions(conn, row.model_id)
    needed = query_rows.workers_needed(conn, row.model_id, row.version)
    if _count(conn, row.model_id, row.version, ("active",), but=row.id) >= needed:
        return []
    if get_version(conn, row.model_id, row.version).interchangeable(to):
        return query_rows.move_queued(conn, row.model_id, row.version, to.number)
    return None


def _count(conn: Connection, model_id: str, version: int, states: tuple[str, ...], but: str = "") -> int:
    rows = open_workers(conn, model_id=model_id)
    return sum(row.version == version and row.state in states and row.id != but for row in rows)


def _set(conn: Connection, row: WorkerRow, **values: Any) -> WorkerRow:
    if all(getattr(row, name) == value for name, value in values.items()):
        return row
    set_worker(conn, row.id, **values)
    return get_worker(conn, row.id)


def _artefact(version: VersionRow) -> str:
    return (version.artefact_sha256 or b"").hex()


def _tell_failed(conn: Connection, row: WorkerRow, version: int, reason: str, now_ms: int) -> None:
    model = find_model(conn, row.model_id)
    facts = {"model": row.model_id, "worker": row.id, "version": version, "reason": reason}
    hooked = model is not None and model.webhook_url is not None
    add_event(conn, row.account_id, row.model_id, "worker.version_failed", facts, now_ms, hooked=hooked)
