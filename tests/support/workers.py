"""Workers in a ledger, and a model of what their time costs that shares no code with the gateway."""

from __future__ import annotations

import os

from sqlalchemy import Connection

from lattice.gateway.encrypted.model_rows import ModelRow
from lattice.gateway.encrypted.version_rows import NewVersion, Ready, create_version, finish_version
from lattice.gateway.workers.rows import NewWorker, WorkerRow, add_worker
from tests.support.ledger import NOW


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


def add_version(conn: Connection, model: ModelRow, artefact: bytes, interface: bytes = b"i" * 32) -> int:
    """Another version that is ready; its number."""
    new = NewVersion(
        source_sha256=b"s" * 32, source_kind="artefact", calibration_sha256=None, options="{}", gateway_id="gw_one"
    )
    number = create_version(conn, model, new, NOW).number
    ready = Ready(
        artefact_sha256=artefact,
        artefact_bytes=1,
        client_sha256=b"c" * 32,
        program_id="prg",
        parameters_id="par",
        keys_hash=b"k" * 32,
        key_bytes=1,
        report="{}",
        interface_hash=interface,
    )
    finish_version(conn, model, number, ready, NOW)
    return number
