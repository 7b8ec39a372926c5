"""Row functions of `works`. An attempt is a fencing token: whoever holds an older one can no longer change the row.

States: `queued | offline_queued → in_flight → completed | failed | expired | cancelled`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, bindparam, insert, literal_column, select, update

from lattice.core.errors import LatticeError
from lattice.gateway.store.prepared import Prepared
from lattice.gateway.store.schema import works
from lattice.gateway.works.records import Admission

IN_FLIGHT_RETRY_MS = 1_000
OPEN_STATES = ("queued", "offline_queued", "in_flight")

_c = works.c
_NEW_COLUMNS = [column.name for column in works.columns if column.name not in ("reason", "ended_at_ms")]
# Inserts nothing where the id exists: no error to recover from, and the usual case stays one statement.
_INSERT = Prepared(
    insert(works).from_select(
        _NEW_COLUMNS,
        select(*(bindparam(name, type_=_c[name].type) for name in _NEW_COLUMNS)).where(
            ~select(1).where(_c.id == bindparam("id")).exists()
        ),
    )
)
_GET = select(works).where(_c.id == bindparam("work"))
_REOPEN = (
    update(works)
    .where(_c.id == bindparam("work"), _c.attempt == bindparam("old_attempt"), _c.ended_at_ms.is_not(None))
    .values({name: bindparam(name) for name in _NEW_COLUMNS if name not in ("id", "created_at_ms")})
    .values(reason=None, ended_at_ms=None)
)
_CLOSE = (
    update(works)
    .where(_c.id == bindparam("work"), _c.attempt == bindparam("the_attempt"), _c.ended_at_ms.is_(None))
    .values(
        state=bindparam("end_state"),
        reason=bindparam("the_reason"),
        delivered_tokens=bindparam("tokens"),
        ended_at_ms=bindparam("now"),
    )
    .returning(_c.account_id, _c.key_id, _c.runtime_id, _c.model, _c.task, _c.sealing, _c.hold_micro)
)
_END = Prepared(_CLOSE)
# Work that was given back to the queue keeps its attempt until the next lease, so the state is part of the fence.
_ANSWER = Prepared(_CLOSE.where(_c.state == literal_column("'in_flight'")))
_LEASE = (
    update(works)
    .where(_c.id == bindparam("work"), _c.state.in_(("queued", "offline_queued")))
    .values(
        state="in_flight",
        attempt=_c.attempt + 1,
        gateway_id=bindparam("gateway"),
        lease_expires_ms=bindparam("lease_expires"),
    )
    .returning(_c.attempt)
)
_RENEW = (
    update(works)
    .where(_c.id == bindparam("work"), _c.attempt == bindparam("the_attempt"), _c.state == "in_flight")
    .values(lease_expires_ms=bindparam("lease_expires"))
)
_REQUEUE = (
    update(works)
    .where(_c.id == bindparam("work"), _c.attempt == bindparam("the_attempt"), _c.state == "in_flight")
    .values(state="queued", lease_expires_ms=_c.deadline_ms)
)


class EndedWork(NamedTuple):
    """What ending a work needs to know of it."""

    account_id: str
    key_id: str
    runtime_id: str
    model: str
    task: str
    sealing: str
    hold_micro: int


class WorkRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `works`."""

    id: str
    account_id: str
    key_id: str
    runtime_id: str
    gateway_id: str
    state: str
    attempt: int
    model: str
    task: str
    sealing: str
    envelope_hash: bytes
    hold_micro: int
    lease_expires_ms: int
    deadline_ms: int
    reason: str | None
    delivered_tokens: int
    created_at_ms: int
    ended_at_ms: int | None


def get_work(conn: Connection, work_id: str) -> WorkRow | None:
    """The row, or None."""
    row = conn.execute(_GET, {"work": work_id}).mappings().one_or_none()
    return None if row is None else WorkRow(**row)


def open_work(conn: Connection, admission: Admission) -> tuple[int, bool]:
    """Record an admitted work; returns its attempt and whether the row existed (a repeat of work that charged nothing).

    Raises `idempotency_conflict` for an id that names other work, `idempotency_in_flight` while it runs, and
    `idempotency_result_unavailable` once an answer, or a part of one, was delivered.
    """
    params = {
        "id": admission.work_id,
        "account_id": admission.account_id,
        "key_id": admission.key_id,
        "runtime_id": admission.runtime_id,
        "gateway_id": admission.gateway_id,
        "state": "in_flight" if admission.leased else "queued",
        "attempt": 1 if admission.leased else 0,
        "model": admission.model,
        "task": admission.task,
        "sealing": admission.sealing,
        "envelope_hash": admission.envelope_hash,
        "hold_micro": admission.amount_micro,
        "lease_expires_ms": admission.lease_expires_ms if admission.leased else admission.deadline_ms,
        "deadline_ms": admission.deadline_ms,
        "delivered_tokens": 0,
        "created_at_ms": admission.now_ms,
    }
    if _INSERT.change(conn, params):
        return int(admission.leased), False
    old = _repeatable(get_work(conn, admission.work_id), admission)
    attempt = old.attempt + int(admission.leased)
    reopened = conn.execute(_REOPEN, params | {"attempt": attempt, "work": old.id, "old_attempt": old.attempt})
    if not reopened.rowcount:  # somebody else reopened it first
        raise _in_flight()
    return attempt, True


def _repeatable(old: WorkRow | None, new: Admission) -> WorkRow:
    # Another account's work is a conflict like any other: it must not be told what the id stands for.
    same = old is not None and (old.account_id, old.key_id, old.runtime_id) == (
        new.account_id,
        new.key_id,
        new.runtime_id,
    )
    if old is None or not same or old.envelope_hash != new.envelope_hash:
        raise LatticeError("idempotency_conflict", "The work id was used before for other work.")
    if old.ended_at_ms is None:
        raise _in_flight()
    if old.state == "completed" or old.delivered_tokens:
        raise LatticeError("idempotency_result_unavailable", f"The work has ended as {old.state}.")
    return old


def _in_flight() -> LatticeError:
    return LatticeError("idempotency_in_flight", retry_after_ms=IN_FLIGHT_RETRY_MS)


def end_work(
    conn: Connection,
    work_id: str,
    attempt: int,
    state: str,
    reason: str | None,
    tokens: int,
    now_ms: int,
    *,
    answered: bool,
) -> EndedWork | None:
    """Close an open work under its attempt; None where the lease is lost or the work has ended.

    `answered`: only a runtime that holds the lease can have answered, so queued work is refused.
    """
    params = {
        "work": work_id,
        "the_attempt": attempt,
        "end_state": state,
        "the_reason": reason,
        "tokens": tokens,
        "now": now_ms,
    }
    row = (_ANSWER if answered else _END).row(conn, params)
    return None if row is None else EndedWork(*row)


def lease(conn: Connection, work_id: str, gateway_id: str, lease_expires_ms: int) -> int:
    """Give queued work to a runtime under a new attempt, which is returned; `lease_lost` where it is not queued."""
    params = {"work": work_id, "gateway": gateway_id, "lease_expires": lease_expires_ms}
    attempt = conn.execute(_LEASE, params).scalar_one_or_none()
    if attempt is None:
        raise LatticeError("lease_lost")
    return int(attempt)


def renew(conn: Connection, refs: Sequence[tuple[str, int]], lease_expires_ms: int) -> list[tuple[str, int]]:
    """Extend the leases of (work, attempt) pairs; returns those that are lost."""
    lost = []
    for work_id, attempt in refs:
        params = {"work": work_id, "the_attempt": attempt, "lease_expires": lease_expires_ms}
        if not conn.execute(_RENEW, params).rowcount:
            lost.append((work_id, attempt))
    return lost


def requeue(conn: Connection, work_id: str, attempt: int) -> bool:
    """Give leased work back to the queue, undelivered; its attempt stays spent. False where the lease was lost."""
    return bool(conn.execute(_REQUEUE, {"work": work_id, "the_attempt": attempt}).rowcount)
