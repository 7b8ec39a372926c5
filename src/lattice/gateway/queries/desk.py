"""Takes queries in: what is checked before one is queued, and that the same idempotency key queues it once."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, bindparam, select

from lattice.core.errors import LatticeError
from lattice.gateway import idempotency
from lattice.gateway.encrypted.token_rows import TokenRecord
from lattice.gateway.encrypted.version_rows import lock_versions
from lattice.gateway.idempotency import Guard
from lattice.gateway.queries.rows import (
    Leased,
    NewQuery,
    QueryRow,
    Seat,
    add_leased,
    add_query,
    get_query,
    open_of_token,
    seated,
)
from lattice.gateway.queries.target import Target, Wanted, choose
from lattice.gateway.store.encrypted_schema import access_tokens, encrypted_databases
from lattice.gateway.store.prepared import Prepared

MAX_OPEN = 256
"""Queries of one token that have not ended."""

_t = access_tokens.c
_BUDGET = Prepared(select(_t.budget_micro, _t.spent_micro, _t.revoked_at_ms).where(_t.id == bindparam("token")))
_DATABASE = select(encrypted_databases.c.blob_sha256).where(
    encrypted_databases.c.id == bindparam("database"),
    encrypted_databases.c.model_id == bindparam("model"),
    encrypted_databases.c.user == bindparam("end_user"),
    encrypted_databases.c.deleted_at_ms.is_(None),
)


class Body(msgspec.Struct, frozen=True):
    """The stored body."""

    sha256: bytes
    size: int


class Taken(msgspec.Struct, frozen=True):
    """The queued query, or the one that the same idempotency key queued before; `leased` where a worker has it now."""

    row: QueryRow
    again: bool
    leased: Leased | None = None


class Checked(msgspec.Struct, frozen=True):
    """What a query that may run will need."""

    target: Target
    database_sha256: bytes | None


def check(conn: Connection, token: TokenRecord, wanted: Wanted) -> Checked:
    """Whether such a query could run: a ready version, keys that fit, budget, a worker that runs or may be started."""
    user = token.require_user()
    target = choose(conn, token, wanted)
    database = None
    if wanted.database is not None:
        params = {"database": wanted.database, "model": token.model_id, "end_user": user}
        database = conn.execute(_DATABASE, params).scalar()
        if database is None:
            raise LatticeError("not_found", "There is no encrypted database with that id.")
    budget, spent, revoked = _BUDGET.row(conn, {"token": token.id}) or (None, 0, 0)  # a row that is gone is no better
    if revoked is not None:
        raise LatticeError("revoked_grant")
    if budget is not None and spent >= budget:
        raise LatticeError("budget_reached")
    if open_of_token(conn, token.id) >= MAX_OPEN:
        raise LatticeError("queue_full", f"The token has {MAX_OPEN} queries that have not ended.", retry_after_ms=1_000)
    return Checked(target, database)


def admit(conn: Connection, token: TokenRecord, wanted: Wanted, guard: Guard | None, now_ms: int) -> None:
    """What `check` says, before a byte of the body is read; a repeat of a query that was taken needs nothing more."""
    if guard is None or not idempotency.known(conn, guard.claim, now_ms):
        check(conn, token, wanted)


def submit(
    conn: Connection,
    token: TokenRecord,
    wanted: Wanted,
    body: Body,
    guard: Guard | None,
    now_ms: int,
    until_ms: int,
    seat: Seat | None = None,
) -> Taken:
    """Queue a query whose body is stored; lease it at once where there is a seat at a worker of its version."""
    if guard is not None:
        kept = idempotency.take(conn, guard.claim, None, now_ms)
        if kept is not None:
            return Taken(get_query(conn, guard.box.open(kept.sealed).decode(), token.id), again=True)
    lock_versions(conn, token.model_id, shared=True)
    found = check(conn, token, wanted)
    target = found.target
    new = NewQuery(
        account_id=token.account_id,
        model_id=token.model_id,
        version=target.version.number,
        token_id=token.id,
        user=token.user,
        evaluation_key_id=target.keys.id,
        verify=wanted.verify,
        input_sha256=body.sha256,
        input_bytes=body.size,
        database_id=wanted.database,
        deadline_ms=until_ms,
    )
    place = seat if _fits(conn, seat, target, wanted) else None
    row = add_query(conn, new, now_ms) if place is None else add_leased(conn, new, place, now_ms)
    if guard is not None:
        idempotency.finish(conn, guard.claim, 202, guard.box.seal(row.id.encode()))
    leased = None if place is None else Leased(row, target.keys.blob_sha256, found.database_sha256)
    return Taken(row, again=False, leased=leased)


def _fits(conn: Connection, seat: Seat | None, target: Target, wanted: Wanted) -> bool:
    """Whether a seat is all the workers that the query needs, and its worker was neither stopped nor switched."""
    if seat is None or seat.version != target.version.number or wanted.verify != 1:
        return False
    return seated(conn, seat.worker_id, seat.version)
