"""What a worker's time costs: the transactions that sell slices, bill what was observed and give back the rest.

Only the gateway's own observations count: a contact of the worker's current session while it is active. The time
between two contacts of a session is billed, never past what was sold, so a worker that vanishes is billed to its last
contact, and a gateway that vanishes bills nothing that it did not see. Each function changes `workers`, `wallets` and
`entries` in its caller's transaction and leaves `held_micro` equal to the price of what is sold and not billed.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, select

from lattice.core.errors import LatticeError
from lattice.gateway.ledger.postings import post_hold, post_release
from lattice.gateway.store.schema import wallets
from lattice.gateway.workers import slices
from lattice.gateway.workers.rows import Reason, WorkerRow, find_worker, get_worker, open_workers, set_worker
from lattice.gateway.workers.slices import DRAIN_MS, SLICE_MS, Meter

STARTING_MS = 120_000
"""A worker that has not been heard of for so long while it starts has failed."""

SILENCE_MS = SLICE_MS + DRAIN_MS
"""An active worker that has not been heard of for so long has stopped by itself: nothing was sold beyond that."""

_WALLET = select(wallets.c.available_micro).where(wallets.c.account_id == bindparam("account"))
_AVAILABLE = _WALLET.with_for_update()  # an account's workers take turns, also beside other gateways


def require_credits(conn: Connection, account_id: str, micro_per_second: int) -> None:
    """Raise `credits_exhausted` where a worker could not even begin."""
    if not covers(conn, account_id, micro_per_second):
        raise LatticeError("credits_exhausted", "The balance does not cover the first seconds of a worker.")


def covers(conn: Connection, account_id: str, micro_per_second: int) -> bool:
    """Whether a worker of that price could begin."""
    available = int(conn.execute(_WALLET, {"account": account_id}).scalar() or 0)
    return not micro_per_second or slices.begin(0, micro_per_second, 0, available) is not None


def contact(conn: Connection, worker_id: str, session: str, active: bool, now_ms: int) -> WorkerRow:
    """A worker was heard: begin, go on or end its billing, and sell the next slice.

    Raises `worker_stopped` for one that has ended. A row that comes back `stopping` must drain and leave.
    """
    row = _locked(conn, worker_id)
    if row.session != session:
        row = _new_session(conn, row, session, now_ms)
    if row.state == "stopping":
        return _save(conn, row, slices.observe(_meter(row), now_ms), now_ms)
    if not active:
        return _idle(conn, row, now_ms)
    if row.state == "active" and now_ms <= _meter(row).end_ms:
        return _go_on(conn, row, now_ms)
    return _begin(conn, row, now_ms)


def stop(conn: Connection, worker_id: str, reason: Reason, now_ms: int) -> WorkerRow:
    """Ask a worker to stop: what was sold beyond the drain reserve is given back. One that never ran ends at once."""
    row = _locked(conn, worker_id, ended=True)
    if not row.open or row.state == "stopping":
        return row
    if row.state != "active":
        return end(conn, worker_id, reason, now_ms)
    return _drain(conn, row, _meter(row), reason, now_ms)  # not a contact, so nothing is billed by it


def end(conn: Connection, worker_id: str, reason: Reason, now_ms: int, *, seen: bool = False) -> WorkerRow:
    """A worker is gone: give back what it did not use. Doing it again is fine.

    It is billed to its last contact, or to now where this very contact said goodbye (`seen`). The reason with which it
    was asked to stop stays.
    """
    row = _locked(conn, worker_id, ended=True)
    if not row.open:
        return row
    meter = _meter(row) if row.paid_until_ms is not None else None
    if meter is not None and seen:
        meter = slices.observe(meter, now_ms)
    ended = max(row.started_at_ms, meter.seen_ms if meter else row.last_seen_ms or row.started_at_ms)
    return _save(
        conn,
        row,
        _closed(meter) if meter else None,
        now_ms,
        state="stopped",
        reason=row.reason or reason,
        ended_at_ms=ended,
        paid_until_ms=None,
    )


def lost(conn: Connection, worker_id: str, now_ms: int) -> WorkerRow:
    """The worker's process died and another one is started for it: nothing is billed until that one is active."""
    row = _locked(conn, worker_id, ended=True)
    if not row.open:
        return row
    if row.state == "stopping":
        return end(conn, worker_id, "failed", now_ms)
    closed = _closed(_meter(row)) if row.paid_until_ms is not None else None
    return _save(
        conn, row, closed, now_ms, state="starting", session=None, paid_until_ms=None, restarts=row.restarts + 1
    )


def lapse(conn: Connection, now_ms: int) -> list[WorkerRow]:
    """End every worker that has been silent for longer than was sold; the gateway that it talked to may be gone too."""
    gone = []
    for row in open_workers(conn):
        seen = row.started_at_ms if row.last_seen_ms is None else row.last_seen_ms
        if now_ms > seen + (STARTING_MS if row.state == "starting" else SILENCE_MS):
            gone.append(end(conn, row.id, "failed", now_ms))
    return gone


# --- private -------------------------------------------------------------------------------------------------


def _locked(conn: Connection, worker_id: str, *, ended: bool = False) -> WorkerRow:
    row = find_worker(conn, worker_id, lock=True)
    if row is None or not (row.open or ended):
        reason = row.reason if row is not None else None
        raise LatticeError("worker_stopped", details={"reason": reason or "requested"})
    return row


def _meter(row: WorkerRow) -> Meter:
    assert row.last_seen_ms is not None
    assert row.paid_until_ms is not None
    return Meter(row.price_micro_per_second, row.billed_ms, row.last_seen_ms, row.paid_until_ms)


def _closed(meter: Meter) -> Meter:
    """The same with nothing sold ahead."""
    return Meter(meter.micro_per_second, meter.billed_ms, meter.seen_ms, meter.seen_ms - DRAIN_MS)


def _new_session(conn: Connection, row: WorkerRow, session: str, now_ms: int) -> WorkerRow:
    """Another process has taken over: the old one is billed to its last contact."""
    closed = _closed(_meter(row)) if row.paid_until_ms is not None else None
    if row.state == "stopping":
        return _save(conn, row, closed, now_ms, session=session)
    return _save(conn, row, closed, now_ms, session=session, state="starting", paid_until_ms=None)


def _idle(conn: Connection, row: WorkerRow, now_ms: int) -> WorkerRow:
    """It loads, or has unloaded: bill to now and sell nothing."""
    meter = _closed(slices.observe(_meter(row), now_ms)) if row.paid_until_ms is not None else None
    seen = max(row.last_seen_ms or 0, now_ms)
    return _save(conn, row, meter, now_ms, state="starting", paid_until_ms=None, last_seen_ms=seen)


def _begin(conn: Connection, row: WorkerRow, now_ms: int) -> WorkerRow:
    """First contact in state active, or the first one after everything sold had run out."""
    if row.paid_until_ms is not None:
        row = _save(conn, row, _closed(slices.observe(_meter(row), now_ms)), now_ms, paid_until_ms=None)
    meter = slices.begin(row.billed_ms, row.price_micro_per_second, now_ms, _available(conn, row.account_id))
    if meter is None:
        return end(conn, row.id, "credits_exhausted", now_ms)
    active_at = now_ms if row.active_at_ms is None else row.active_at_ms
    return _save(conn, row, meter, now_ms, state="active", active_at_ms=active_at)


def _go_on(conn: Connection, row: WorkerRow, now_ms: int) -> WorkerRow:
    meter = slices.observe(_meter(row), now_ms)
    longer = slices.extend(meter, now_ms, _available(conn, row.account_id))
    if longer.paid_until_ms <= max(now_ms, meter.seen_ms):
        return _drain(conn, row, meter, "credits_exhausted", now_ms)
    return _save(conn, row, longer, now_ms)


def _drain(conn: Connection, row: WorkerRow, meter: Meter, reason: Reason, now_ms: int) -> WorkerRow:
    now = max(now_ms, meter.seen_ms)
    shorter = Meter(meter.micro_per_second, meter.billed_ms, meter.seen_ms, min(meter.paid_until_ms, now))
    return _save(conn, row, shorter, now_ms, state="stopping", reason=reason)


def _save(conn: Connection, row: WorkerRow, meter: Meter | None, now_ms: int, **changes: Any) -> WorkerRow:
    """Move the money that the meter's change means, then write the row."""
    if meter is not None:
        charge = meter.billed_micro - row.billed_micro
        if charge:
            post_release(conn, "worker_charge", row.account_id, charge, charge, row.id, now_ms)
        more = meter.held_micro - (row.held_micro - charge)
        if more > 0:
            post_hold(conn, row.account_id, more, row.id, now_ms, "worker_hold")
        elif more < 0:
            post_release(conn, "worker_release", row.account_id, -more, 0, row.id, now_ms)
        changes = {
            "billed_ms": meter.billed_ms,
            "billed_micro": meter.billed_micro,
            "held_micro": meter.held_micro,
            "paid_until_ms": meter.paid_until_ms,
            "last_seen_ms": meter.seen_ms,
        } | changes
    set_worker(conn, row.id, **changes)
    return get_worker(conn, row.id)


def _available(conn: Connection, account_id: str) -> int:
    return int(conn.execute(_AVAILABLE, {"account": account_id}).scalar() or 0)
