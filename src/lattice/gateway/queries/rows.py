"""Rows of `encrypted_queries`: `queued → in_flight → completed | failed | cancelled | expired`, with fenced attempts.

An open query is either queued or leased to one worker under an attempt; whatever comes under another attempt is too
late. A query that is to be verified is queued again after its first result, for another worker than the first.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, and_, bindparam, delete, func, insert, or_, select, update

from lattice.core.clock import MINUTE_MS
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.store.encrypted_schema import (
    access_tokens,
    encrypted_databases,
    encrypted_queries,
    evaluation_keys,
    workers,
)
from lattice.gateway.store.prepared import Prepared

State = Literal["queued", "in_flight", "completed", "failed", "cancelled", "expired"]
EndState = Literal["completed", "failed", "cancelled", "expired"]

LEASE_MS = MINUTE_MS
"""A lease lasts this long without a poll that names the query among those that run."""

MAX_RUNS = 2
"""Attempts for each result that is needed: a dead worker's query is run once more elsewhere."""

BATCH = 500

_c = encrypted_queries.c
_INSERT = Prepared(insert(encrypted_queries), tuple(column.name for column in _c))
_ALL = select(encrypted_queries)
_BY_ID = _ALL.where(_c.id == bindparam("query"))
_FIND, _LOCK = Prepared(_BY_ID), Prepared(_BY_ID.with_for_update())
_OPEN_OF_TOKEN = Prepared(select(func.count()).where(_c.token_id == bindparam("token"), _c.ended_at_ms.is_(None)))
_QUEUED = (
    _ALL.where(
        _c.ended_at_ms.is_(None),
        _c.model_id == bindparam("model"),
        _c.version == bindparam("number"),
        _c.state == "queued",
        # A second opinion comes from another worker.
        or_(_c.output_sha256.is_(None), _c.worker_id != bindparam("worker")),
    )
    .order_by(_c.id)
    .limit(bindparam("most"))
    .with_for_update(skip_locked=True)
)
_SPENT = select(access_tokens.c.id).where(
    access_tokens.c.id.in_(bindparam("tokens", expanding=True)),
    access_tokens.c.spent_micro >= access_tokens.c.budget_micro,  # never true where there is no budget
)
_RENEW = (
    update(encrypted_queries)
    .where(_c.worker_id == bindparam("worker"), _c.state == "in_flight", _c.ended_at_ms.is_(None))
    .values(lease_expires_ms=bindparam("until"))
)
_WAITING = (
    select(_c.model_id, _c.version, func.count(), func.min(_c.created_at_ms))
    .where(_c.ended_at_ms.is_(None), _c.state == "queued")
    .group_by(_c.model_id, _c.version)
)
_SEATED = Prepared(
    select(workers.c.id).where(
        workers.c.id == bindparam("worker"), workers.c.version == bindparam("number"), workers.c.state == "active"
    )
)


class QueryRow(msgspec.Struct, frozen=True):
    """One row, in the table's order."""

    id: str
    account_id: str
    model_id: str
    version: int
    token_id: str
    user: str
    evaluation_key_id: str
    state: State
    attempt: int
    worker_id: str | None
    verify: int
    input_sha256: bytes
    input_bytes: int
    output_sha256: bytes | None
    output_bytes: int | None
    database_id: str | None
    receipt: bytes | None
    timings: str | None
    reason: str | None
    created_at_ms: int
    lease_expires_ms: int
    deadline_ms: int
    ended_at_ms: int | None

    @property
    def open(self) -> bool:
        """Whether it has no end yet."""
        return self.ended_at_ms is None

    def measured(self) -> dict[str, int]:
        """What the gateway has timed, by name."""
        return msgspec.json.decode(self.timings, type=dict[str, int]) if self.timings else {}


class NewQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A query that asks to run; everything has been checked."""

    account_id: str
    model_id: str
    version: int
    token_id: str
    user: str
    evaluation_key_id: str
    verify: int
    input_sha256: bytes
    input_bytes: int
    database_id: str | None
    deadline_ms: int


class Seat(msgspec.Struct, frozen=True):
    """Room at a worker that waits for work."""

    worker_id: str
    version: int


def add_query(conn: Connection, new: NewQuery, now_ms: int) -> QueryRow:
    """Queue it."""
    fresh = {"worker_id": None, "timings": None, "state": "queued", "attempt": 0, "lease_expires_ms": new.deadline_ms}
    return _add(conn, new, now_ms, fresh)


def add_leased(conn: Connection, new: NewQuery, seat: Seat, now_ms: int) -> QueryRow:
    """Queue it and lease it to a worker that waits, in one statement."""
    return _add(conn, new, now_ms, _leased(new.deadline_ms, {}, 0, seat.worker_id, now_ms))


def _add(conn: Connection, new: NewQuery, now_ms: int, state: dict[str, Any]) -> QueryRow:
    row = QueryRow(
        id=new_id(Prefix.QUERY, now_ms),
        created_at_ms=now_ms,
        output_sha256=None,
        output_bytes=None,
        receipt=None,
        reason=None,
        ended_at_ms=None,
        **msgspec.structs.asdict(new) | state,
    )
    _INSERT.change(conn, msgspec.structs.asdict(row))
    return row


def find_query(conn: Connection, query_id: str, *, lock: bool = False) -> QueryRow | None:
    """The query, or None."""
    row = (_LOCK if lock else _FIND).row(conn, {"query": query_id})
    return None if row is None else QueryRow(*row)


def get_query(conn: Connection, query_id: str, token_id: str | None = None) -> QueryRow:
    """The query; `not_found` also for another token's."""
    row = find_query(conn, query_id)
    if row is None or token_id not in (None, row.token_id):
        raise LatticeError("not_found", "There is no query with that id.")
    return row


def list_queries(conn: Connection, token_id: str, cursor: str | None, limit: int) -> list[QueryRow]:
    """A token's queries, newest first."""
    statement = _ALL.where(_c.token_id == token_id).order_by(_c.id.desc()).limit(limit)
    if cursor is not None:
        statement = statement.where(_c.id < cursor)
    return [QueryRow(*row) for row in conn.execute(statement)]


def open_of_token(conn: Connection, token_id: str) -> int:
    """How many queries of a token have not ended."""
    (count,) = _OPEN_OF_TOKEN.row(conn, {"token": token_id}) or (0,)
    return int(count)


# --- leases --------------------------------------------------------------------------------------------------


class Leased(msgspec.Struct, frozen=True):
    """A leased query with the hashes of what it needs."""

    row: QueryRow
    keys_sha256: bytes
    database_sha256: bytes | None


def seated(conn: Connection, worker_id: str, version: int) -> bool:
    """Whether a worker may be given work of a version, as far as this transaction sees."""
    return _SEATED.row(conn, {"worker": worker_id, "number": version}) is not None


def lease(
    conn: Connection, worker_id: str, model_id: str, version: int, most: int, cached: frozenset[str], now_ms: int
) -> list[Leased]:
    """Lease up to `most` queued queries, oldest first; among the next few, those whose keys the worker has ready.

    Fewer than `most` means that the queue is empty. What cannot run any more ends here: its keys or its database are
    gone, or its token has reached its budget. So a budget is exceeded by what is running at that moment and nothing
    else, however much is queued.
    """
    leased: list[Leased] = []
    while len(leased) < most:
        room = most - len(leased)
        params = {"model": model_id, "number": version, "worker": worker_id, "most": 4 * room}
        found = [QueryRow(*row) for row in conn.execute(_QUEUED, params)]
        if not found:
            break
        leased += _lease_some(conn, found, worker_id, room, cached, now_ms)
    return leased


def _lease_some(
    conn: Connection, found: list[QueryRow], worker_id: str, most: int, cached: frozenset[str], now_ms: int
) -> list[Leased]:
    """Lease or end the first of them."""
    keys = _hashes(conn, evaluation_keys, {row.evaluation_key_id for row in found})
    bases = _hashes(conn, encrypted_databases, {row.database_id for row in found if row.database_id})
    spent = set(conn.execute(_SPENT, {"tokens": list({row.token_id for row in found})}).scalars())
    oldest, rest = found[:1], found[1:]
    rest.sort(key=lambda row: keys.get(row.evaluation_key_id, b"").hex() not in cached)
    leased: list[Leased] = []
    for row in oldest + rest:
        database = bases.get(row.database_id) if row.database_id else None
        if len(leased) == most:
            break
        if row.token_id in spent:
            end_query(conn, row, "failed", "budget_reached", now_ms)
        elif row.evaluation_key_id not in keys:
            end_query(conn, row, "failed", "keys_missing", now_ms)
        elif row.database_id and database is None:
            end_query(conn, row, "failed", "database_missing", now_ms)
        else:
            leased.append(Leased(_lease(conn, row, worker_id, now_ms), keys[row.evaluation_key_id], database))
    return leased


def _lease(conn: Connection, row: QueryRow, worker_id: str, now_ms: int) -> QueryRow:
    timings = row.measured()
    timings.setdefault("queue_ms", max(0, now_ms - row.created_at_ms))
    return _change(conn, row, **_leased(row.deadline_ms, timings, row.attempt, worker_id, now_ms))


def _leased(deadline_ms: int, timings: dict[str, int], attempt: int, worker_id: str, now_ms: int) -> dict[str, Any]:
    """What a lease changes."""
    return {
        "state": "in_flight",
        "attempt": attempt + 1,
        "worker_id": worker_id,
        "lease_expires_ms": min(now_ms + LEASE_MS, deadline_ms),
        "timings": msgspec.json.encode({"queue_ms": 0} | timings | {"leased_at_ms": now_ms}).decode(),
    }


def _hashes(conn: Connection, table: Any, ids: set[str | None], *, deleted: bool = False) -> dict[str, bytes]:
    statement = select(table.c.id, table.c.blob_sha256).where(table.c.id.in_(ids))
    if not deleted:
        statement = statement.where(table.c.deleted_at_ms.is_(None))
    return {row_id: bytes(sha256) for row_id, sha256 in conn.execute(statement)} if ids else {}


def renew(conn: Connection, worker_id: str, now_ms: int) -> None:
    """The worker was heard: its leases go on."""
    conn.execute(_RENEW, {"worker": worker_id, "until": now_ms + LEASE_MS})


def leased_to(conn: Connection, worker_id: str) -> list[Leased]:
    """What is leased to a worker, for one that goes on with it."""
    return [with_hashes(conn, row) for row in leases_of(conn, worker_id)]


def with_hashes(conn: Connection, row: QueryRow) -> Leased:
    """The query with the hashes of what it needs, which a lease keeps even where that was deleted meanwhile."""
    keys = _hashes(conn, evaluation_keys, {row.evaluation_key_id}, deleted=True)
    bases = _hashes(conn, encrypted_databases, {row.database_id} if row.database_id else set(), deleted=True)
    return Leased(row, keys.get(row.evaluation_key_id, b""), bases.get(row.database_id) if row.database_id else None)


def leases_of(conn: Connection, worker_id: str) -> list[QueryRow]:
    """What is leased to a worker."""
    found = conn.execute(_ALL.where(_c.worker_id == worker_id, _c.state == "in_flight", _c.ended_at_ms.is_(None)))
    return [QueryRow(*row) for row in found]


# --- versions ------------------------------------------------------------------------------------------------


def workers_needed(conn: Connection, model_id: str, version: int) -> int:
    """How many workers of a version its queries still need: 0 where none waits, and none will wait again."""
    again = and_(_c.verify > 1, _c.output_sha256.is_(None))
    wanted = select(func.max(_c.verify)).where(
        _c.ended_at_ms.is_(None), _c.model_id == model_id, _c.version == version, or_(_c.state == "queued", again)
    )
    return int(conn.execute(wanted).scalar() or 0)


def move_queued(conn: Connection, model_id: str, version: int, to: int) -> list[QueryRow]:
    """Give the queue of one version to an interchangeable one. Both opinions of a verified query are of one version."""
    found = conn.execute(
        _ALL.where(_c.ended_at_ms.is_(None), _c.model_id == model_id, _c.version == version, _c.state == "queued")
        .order_by(_c.id)
        .with_for_update()
    ).all()
    fresh = {"output_sha256": None, "output_bytes": None, "receipt": None}
    return [_change(conn, QueryRow(*row), version=to, **fresh) for row in found]


# --- ends ----------------------------------------------------------------------------------------------------


class Delivery(msgspec.Struct, frozen=True):
    """A worker's result whose bytes are stored. `began_ms`: when it had its turn, after waiting behind others there."""

    query_id: str
    worker_id: str
    attempt: int
    sha256: bytes
    size: int
    receipt: bytes | None
    began_ms: int = 0


def deliver(conn: Connection, given: Delivery, now_ms: int) -> QueryRow:
    """Take a result. The identical call may be repeated; `lease_lost` for one that comes too late.

    A first result of a query that is to be verified queues it again, for another worker; a second one that differs ends
    it with `results_differ`.
    """
    row = find_query(conn, given.query_id, lock=True)
    if row is None or (row.worker_id, row.attempt) != (given.worker_id, given.attempt):
        raise LatticeError("lease_lost")
    if row.state != "in_flight":
        if row.output_sha256 == given.sha256 and row.state in ("completed", "queued"):
            return row
        raise LatticeError("lease_lost")
    timings = row.measured()
    leased_at = timings.pop("leased_at_ms", now_ms)
    began = max(leased_at, given.began_ms)
    timings["queue_ms"] = timings.get("queue_ms", 0) + began - leased_at
    timings["worker_ms"] = timings.get("worker_ms", 0) + max(0, now_ms - began)
    result = {
        "output_sha256": given.sha256,
        "output_bytes": given.size,
        "receipt": given.receipt,
        "timings": msgspec.json.encode(timings).decode(),
    }
    if row.verify == 2 and row.output_sha256 is None:
        return _change(conn, row, state="queued", lease_expires_ms=row.deadline_ms, **result)
    if row.output_sha256 not in (None, given.sha256):
        return end_query(conn, row, "failed", "results_differ", now_ms)
    return _change(conn, row, state="completed", ended_at_ms=now_ms, **result)


def give_back(
    conn: Connection, query_id: str, worker_id: str, attempt: int, code: str, now_ms: int, *, again: bool = True
) -> QueryRow | None:
    """An attempt ended without a result: queue it again, or fail it; None where it is not that attempt's any more."""
    row = find_query(conn, query_id, lock=True)
    if row is None or row.state != "in_flight" or (row.worker_id, row.attempt) != (worker_id, attempt):
        return None
    if again and row.attempt < MAX_RUNS * row.verify and row.deadline_ms > now_ms:
        # Both opinions anew: the row names one worker only, and two runs must not be the same one's.
        fresh = {"output_sha256": None, "output_bytes": None, "receipt": None}
        return _change(conn, row, state="queued", lease_expires_ms=row.deadline_ms, **fresh)
    return end_query(conn, row, "failed", code, now_ms)


def cancel_query(conn: Connection, query_id: str, token_id: str, now_ms: int) -> QueryRow:
    """End an open query without a result; one that has ended stays as it is."""
    get_query(conn, query_id, token_id)
    row = find_query(conn, query_id, lock=True)
    assert row is not None
    return end_query(conn, row, "cancelled", "work_cancelled", now_ms) if row.open else row


def end_waiting_for(conn: Connection, model_id: str, database_id: str, now_ms: int) -> list[QueryRow]:
    """Fail what is queued for a database that is gone. What a worker has already goes on."""
    waiting = _ALL.where(_c.ended_at_ms.is_(None), _c.model_id == model_id, _c.state == "queued")
    found = conn.execute(waiting.where(_c.database_id == database_id).with_for_update()).all()
    return [end_query(conn, QueryRow(*row), "failed", "database_missing", now_ms) for row in found]


def end_open(conn: Connection, account_id: str, code: str, now_ms: int) -> list[QueryRow]:
    """Fail every open query on an account's models."""
    found = conn.execute(_ALL.where(_c.account_id == account_id, _c.ended_at_ms.is_(None)).with_for_update()).all()
    return [end_query(conn, QueryRow(*row), "failed", code, now_ms) for row in found]


def end_query(conn: Connection, row: QueryRow, state: EndState, code: str, now_ms: int) -> QueryRow:
    """End an open query without a result, whatever it has so far."""
    ended = {"state": state, "reason": code, "ended_at_ms": now_ms, "output_sha256": None, "output_bytes": None}
    return _change(conn, row, receipt=None, **ended)


class Swept(msgspec.Struct, frozen=True):
    """A query whose time was up, before and after."""

    before: QueryRow
    after: QueryRow


def sweep(conn: Connection, now_ms: int) -> list[Swept]:
    """Expire what has passed its deadline, and give back what has lost its lease; at most `BATCH` at a time."""
    late = and_(_c.state == "in_flight", _c.lease_expires_ms <= now_ms)
    found = conn.execute(
        _ALL.where(_c.ended_at_ms.is_(None), or_(_c.deadline_ms <= now_ms, late))
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    ).all()
    swept = []
    for row in (QueryRow(*each) for each in found):
        if row.deadline_ms <= now_ms:
            swept.append(Swept(row, end_query(conn, row, "expired", "query_expired", now_ms)))
        elif row.worker_id is not None:
            after = give_back(conn, row.id, row.worker_id, row.attempt, "runtime_failed", now_ms)
            swept.append(Swept(row, after or row))
    return swept


def forget_queries(conn: Connection, before_ms: int) -> int:
    """Drop what ended before then; the blobs that only they named go with the next sweep of blobs."""
    old = select(_c.id).where(_c.ended_at_ms.is_not(None), _c.id < new_id(Prefix.QUERY, max(0, before_ms), bytes(10)))
    return conn.execute(delete(encrypted_queries).where(_c.id.in_(old.limit(BATCH)))).rowcount


class Waiting(msgspec.Struct, frozen=True):
    """The queue of one model version."""

    model_id: str
    version: int
    queries: int
    since_ms: int


def waiting(conn: Connection) -> list[Waiting]:
    """Every queue that is not empty."""
    return [Waiting(*row) for row in conn.execute(_WAITING)]


def _change(conn: Connection, row: QueryRow, **values: Any) -> QueryRow:
    _update(*sorted(values)).change(conn, {"row_id": row.id} | {f"new_{name}": value for name, value in values.items()})
    return msgspec.structs.replace(row, **values)


@cache
def _update(*names: str) -> Prepared:
    """Set these columns of one row."""
    values = {name: bindparam(f"new_{name}", type_=_c[name].type) for name in names}
    return Prepared(update(encrypted_queries).where(_c.id == bindparam("row_id")).values(values))
