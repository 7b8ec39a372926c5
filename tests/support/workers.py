"""Workers in a ledger, and a model of what their time costs that shares no code with the gateway."""

from __future__ import annotations

import os

from sqlalchemy import Connection

from lattice.gateway.workers.rows import NewWorker, WorkerRow, add_worker


def new_worker(conn: Connection, account_id: str, price: int, now_ms: int, **changes: object) -> WorkerRow:
    """A worker that starts."""
    fields: dict[str, object] = {
        "account_id": account_id,
        "model_id": "mdl_one",
        "version": 1,
        "hardware_class": "small",
        "price_micro_per_second": price,
        "credential_hash": os.urandom(32),
        "gateway_id": "gw_one",
    }
    return add_worker(conn, NewWorker(**fields | changes), now_ms)  # type: ignore[arg-type]
