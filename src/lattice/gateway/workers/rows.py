"""Row functions of `workers`: one row is one worker session, from its start to the reason why it stopped."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select, update

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.store.schema import workers

State = Literal["starting", "active", "stopping", "stopped"]
Reason = Literal["requested", "credits_exhausted", "idle", "failed"]

OWN = "own"
"""The hardware class of a worker that runs on the provider's own machine: it costs nothing."""

_c = workers.c
_PUBLIC = [column for column in workers.columns if column.name != "credential_hash"]
_ALL = select(*_PUBLIC)
_BY_ID = _ALL.where(_c.id == bindparam("worker"))
_LOCKED = _BY_ID.with_for_update()
_BY_CREDENTIAL = _ALL.where(_c.credential_hash == bindparam("hash"))
_OPEN = _ALL.where(_c.ended_at_ms.is_(None))
_RATE = select(func.coalesce(func.sum(_c.price_micro_per_second), 0)).where(
    _c.account_id == bindparam("account"), _c.ended_at_ms.is_(None), _c.state == "active"
)


class WorkerRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `workers`, without its credential."""

    id: str
    account_id: str
    model_id: str
    version: int
    hardware_class: str
    state: State
    reason: Reason | None
    session: str | None
    gateway_id: str | None
    started_at_ms: int
    active_at_ms: int | None
    ended_at_ms: int | None
    last_seen_ms: int | None
    paid_until_ms: int | None
    billed_ms: int
    billed_micro: int
    held_micro: int
    price_micro_per_second: int
    restarts: int
    next_version: int | None = None
    """Loaded, or to be loaded, in place of `version` as soon as that strands no query."""
    failed_version: int | None = None
    """What it could not load; it is offered no such version again."""

    @property
    def heading(self) -> int:
        """The version that new queries meet here."""
        return self.next_version or self.version

    @property
    def open(self) -> bool:
        """Whether it has not stopped."""
        return self.ended_at_ms is None


class NewWorker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker to start."""

    account_id: str
    model_id: str
    version: int
    hardware_class: str
    price_micro_per_second: int
    credential_hash: bytes
    gateway_id: str | None


def add_worker(conn: Connection, new: NewWorker, now_ms: int) -> WorkerRow:
    """A worker in state `starting`; nothing is billed before it is active."""
    values = msgspec.to_builtins(new, builtin_types=(bytes,)) | {
        "id": new_id(Prefix.WORKER, now_ms),
        "state": "starting",
        "started_at_ms": now_ms,
        "billed_ms": 0,
        "billed_micro": 0,
        "held_micro": 0,
        "restarts": 0,
    }
    conn.execute(insert(workers), values)
    return get_worker(conn, values["id"])


def find_worker(conn: Connection, worker_id: str, *, lock: bool = False) -> WorkerRow | None:
    """The worker, or None; `lock` keeps its row until the transaction ends."""
    row = conn.execute(_LOCKED if lock else _BY_ID, {"worker": worker_id}).mappings().one_or_none()
    return None if row is None else WorkerRow(**row)


def get_worker(conn: Connection, worker_id: str, account_id: str | None = None) -> WorkerRow:
    """The worker; `not_found` also for another account's."""
    row = find_worker(conn, worker_id)
    if row is None or account_id not in (None, row.account_id):
        raise LatticeError("not_found", "The account has no worker with that id.")
    return row


def worker_by_credential(conn: Connection, credential_hash: bytes) -> WorkerRow | None:
    """The worker that shows this credential."""
    row = conn.execute(_BY_CREDENTIAL, {"hash": credential_hash}).mappings().one_or_none()
    return None if row is None else WorkerRow(**row)


def set_worker(conn: Connection, worker_id: str, **values: Any) -> None:
    """Change columns of a worker."""
    conn.execute(update(workers).where(_c.id == worker_id), values)


def list_workers(
    conn: Connection,
    account_id: str,
    *,
    model_id: str | None = None,
    ended: bool | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> list[WorkerRow]:
    """An account's workers, newest first; `ended` picks those that have, or have not, stopped."""
    statement = _ALL.where(_c.account_id == account_id).order_by(_c.id.desc()).limit(limit)
    if model_id is not None:
        statement = statement.where(_c.model_id == model_id)
    if ended is not None:
        statement = statement.where(_c.ended_at_ms.is_not(None) if ended else _c.ended_at_ms.is_(None))
    if cursor is not None:
        statement = statement.where(_c.id < cursor)
    return [WorkerRow(**row) for row in conn.execute(statement).mappings()]


def open_workers(conn: Connection, *, gateway_id: str | None = None, model_id: str | None = None) -> list[WorkerRow]:
    """Workers that have not stopped, oldest first: everybody's, one gateway's, or one model's."""
    statement = _OPEN.order_by(_c.id)
    if gateway_id is not None:
        statement = statement.where(_c.gateway_id == gateway_id)
    if model_id is not None:
        statement = statement.where(_c.model_id == model_id)
    return [WorkerRow(**row) for row in conn.execute(statement).mappings()]


def lately_exhausted(conn: Connection, model_id: str) -> WorkerRow | None:
    """The model's newest worker, where it stopped because the credits had run out."""
    row = conn.execute(_ALL.where(_c.model_id == model_id).order_by(_c.id.desc()).limit(1)).mappings().one_or_none()
    return WorkerRow(**row) if row is not None and row["reason"] == "credits_exhausted" else None


def current_rate(conn: Connection, account_id: str) -> int:
    """What the account's active workers cost together, in micro-credits per second."""
    return int(conn.execute(_RATE, {"account": account_id}).scalar() or 0)
