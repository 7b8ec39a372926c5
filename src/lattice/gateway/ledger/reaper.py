"""Ends work that nobody ends: dead leases, passed deadlines, and whatever a gateway left behind when it died."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, Select, bindparam, or_, select

from lattice.gateway.ledger.holds import void
from lattice.gateway.store.schema import works
from lattice.gateway.works.records import Ending, EndState

BATCH = 500

_c = works.c
_OPEN = select(_c.id, _c.attempt, _c.gateway_id, _c.deadline_ms).where(_c.ended_at_ms.is_(None))
# SKIP LOCKED (nothing on SQLite): gateways that reap at the same time share the rows instead of waiting.
_DEAD = (
    _OPEN.where(or_(_c.lease_expires_ms <= bindparam("now"), _c.deadline_ms <= bindparam("now")))
    .limit(BATCH)
    .with_for_update(skip_locked=True)
)
_LEFT = (
    _OPEN.where(_c.gateway_id == bindparam("gateway"), _c.state != "offline_queued")
    .limit(BATCH)
    .with_for_update(skip_locked=True)
)


class Reaped(msgspec.Struct, frozen=True):
    """A work that was ended from outside."""

    work_id: str
    attempt: int
    gateway_id: str
    reason: str


def reap(conn: Connection, now_ms: int) -> list[Reaped]:
    """Void work whose lease or deadline has passed, at most `BATCH` at a time; repeat while it is full."""
    return _sweep(conn, _DEAD, {"now": now_ms}, "expired", now_ms, None)


def recover(conn: Connection, gateway_id: str, now_ms: int) -> list[Reaped]:
    """At start: void everything that this gateway left in flight, whatever the runtime did. Void, never guess."""
    ended: list[Reaped] = []
    while batch := _sweep(conn, _LEFT, {"gateway": gateway_id}, "failed", now_ms, "gateway_restarted"):
        ended += batch
    return ended


def _sweep(
    conn: Connection,
    found: Select[str, int, str, int],
    params: dict[str, object],
    state: EndState,
    now_ms: int,
    reason: str | None,
) -> list[Reaped]:
    ended = []
    for work_id, attempt, gateway_id, deadline_ms in conn.execute(found, params).all():
        why = reason or ("deadline" if deadline_ms <= now_ms else "lease_expired")
        ending = Ending(work_id=work_id, attempt=attempt, state=state, reason=why, now_ms=now_ms, keep_claim=True)
        if void(conn, ending):
            ended.append(Reaped(work_id, attempt, gateway_id, why))
    return ended
