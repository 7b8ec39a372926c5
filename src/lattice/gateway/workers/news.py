"""Events that workers cause: one begins or ends, or an account's credits run low."""

from __future__ import annotations

from sqlalchemy import Connection

from lattice.gateway.encrypted.event_rows import add_event, carry_event
from lattice.gateway.encrypted.model_rows import find_model
from lattice.gateway.workers.rows import WorkerRow, open_workers


def tell_active(conn: Connection, row: WorkerRow, now_ms: int) -> None:
    """It evaluates, and is billed, from now on."""
    facts = {"worker": row.id, "version": row.version, "hardware_class": row.hardware_class}
    _tell(conn, row, "worker.active", facts, now_ms)


def tell_stopped(conn: Connection, row: WorkerRow, now_ms: int) -> None:
    """It has ended, and why."""
    _tell(conn, row, "worker.stopped", {"worker": row.id, "reason": row.reason, "billed_ms": row.billed_ms}, now_ms)


def tell_low(conn: Connection, account_id: str, available: int, rate: int, now_ms: int) -> None:
    """One event of the account, of which the webhook of every model with an active worker hears too."""
    running = {row.model_id for row in open_workers(conn) if row.account_id == account_id and row.state == "active"}
    facts = {
        "models": sorted(running),
        "available_micro": available,
        "micro_per_second": rate,
        "remaining_seconds": available // max(1, rate),
    }
    event = add_event(conn, account_id, None, "credits.low", facts, now_ms, hooked=False)
    for model_id in sorted(running):
        model = find_model(conn, model_id)
        if model is not None and model.webhook_url is not None:
            carry_event(conn, event, model_id, now_ms)


def _tell(conn: Connection, row: WorkerRow, kind: str, facts: dict[str, object], now_ms: int) -> None:
    model = find_model(conn, row.model_id)
    hooked = model is not None and model.webhook_url is not None
    add_event(conn, row.account_id, row.model_id, kind, {"model": row.model_id, **facts}, now_ms, hooked=hooked)
