"""Rows of `model_versions`: `uploaded → compiling → ready | failed(reason)`, numbered from 1 within a model."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, bindparam, func, insert, select, update

from lattice.core.errors import LatticeError
from lattice.gateway.encrypted.event_rows import add_event
from lattice.gateway.encrypted.model_rows import ModelRow
from lattice.gateway.store.schema import encrypted_models, model_versions

SourceKind = Literal["artefact", "onnx"]
VersionState = Literal["uploaded", "compiling", "ready", "failed"]

_c = model_versions.c
_INSERT = insert(model_versions)
_GET = select(model_versions).where(_c.model_id == bindparam("model"), _c.number == bindparam("n"))
_LAST = select(func.coalesce(func.max(_c.number), 0)).where(_c.model_id == bindparam("model"))
_LATEST_READY = (
    select(model_versions)
    .where(_c.model_id == bindparam("model"), _c.state == "ready")
    .order_by(_c.number.desc())
    .limit(1)
)
_LOCK = select(encrypted_models.c.id).where(encrypted_models.c.id == bindparam("model")).with_for_update()
_SHARE = select(encrypted_models.c.id).where(encrypted_models.c.id == bindparam("model")).with_for_update(read=True)
_OPEN = (
    select(model_versions)
    .where(_c.ended_at_ms.is_(None), _c.gateway_id == bindparam("gateway"))
    .order_by(_c.created_at_ms)
)


class VersionRow(msgspec.Struct, frozen=True):
    """One row, in the table's order."""

    model_id: str
    number: int
    state: VersionState
    reason: str | None
    source_sha256: bytes
    source_kind: SourceKind
    calibration_sha256: bytes | None
    options: str
    artefact_sha256: bytes | None
    artefact_bytes: int | None
    client_sha256: bytes | None
    program_id: str | None
    parameters_id: str | None
    keys_hash: bytes | None
    key_bytes: int | None
    report: str | None
    gateway_id: str | None
    created_at_ms: int
    ended_at_ms: int | None
    interface_hash: bytes | None = None

    def interchangeable(self, other: VersionRow) -> bool:
        """Whether what was encrypted for one can be evaluated by the other: same keys, same encoding, same answers."""
        mine = (self.keys_hash, self.parameters_id, self.interface_hash)
        theirs = (other.keys_hash, other.parameters_id, other.interface_hash)
        return self.number == other.number or (self.interface_hash is not None and mine == theirs)


class NewVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What was uploaded."""

    source_sha256: bytes
    source_kind: SourceKind
    calibration_sha256: bytes | None
    options: str
    gateway_id: str


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a version that is ready."""

    artefact_sha256: bytes
    artefact_bytes: int
    client_sha256: bytes
    program_id: str
    parameters_id: str
    keys_hash: bytes
    key_bytes: int
    report: str
    interface_hash: bytes | None = None


def create_version(conn: Connection, model: ModelRow, new: NewVersion, now_ms: int) -> VersionRow:
    """The next number of the model, in state `uploaded`."""
    conn.execute(_LOCK, {"model": model.id})  # on PostgreSQL two gateways must not take one number
    number = conn.execute(_LAST, {"model": model.id}).scalar_one() + 1
    values: dict[str, Any] = msgspec.structs.asdict(new)
    values |= {"model_id": model.id, "number": number, "state": "uploaded", "created_at_ms": now_ms}
    conn.execute(_INSERT, values)
    row = get_version(conn, model.id, number)
    _tell(conn, model, row, now_ms)
    return row


def get_version(conn: Connection, model_id: str, number: int) -> VersionRow:
    """One of them, or `not_found`."""
    row = conn.execute(_GET, {"model": model_id, "n": number}).one_or_none()
    if row is None:
        raise LatticeError("not_found", "The model has no version of that number.")
    return VersionRow(*row)


def list_versions(conn: Connection, model_id: str, before: int | None = None, limit: int = 50) -> list[VersionRow]:
    """Newest first."""
    statement = select(model_versions).where(_c.model_id == model_id)
    if before is not None:
        statement = statement.where(_c.number < before)
    return [VersionRow(*row) for row in conn.execute(statement.order_by(_c.number.desc()).limit(limit))]


def ready_version(conn: Connection, model_id: str) -> VersionRow | None:
    """The newest that is ready, which is the one that queries run on."""
    row = conn.execute(_LATEST_READY, {"model": model_id}).one_or_none()
    return None if row is None else VersionRow(*row)


def ready_versions(conn: Connection, model_id: str, numbers: set[int]) -> list[VersionRow]:
    """Those of them that are ready, newest first."""
    found = conn.execute(
        select(model_versions)
        .where(_c.model_id == model_id, _c.state == "ready", _c.number.in_(numbers))
        .order_by(_c.number.desc())
    )
    return [VersionRow(*row) for row in found]


def has_artefact(conn: Connection, model_id: str, sha256: bytes) -> bool:
    """Whether a version of the model that is ready has this program."""
    wanted = select(_c.number).where(_c.model_id == model_id, _c.state == "ready", _c.artefact_sha256 == sha256)
    return conn.execute(wanted.limit(1)).one_or_none() is not None


def previous_ready(conn: Connection, model_id: str, number: int) -> VersionRow | None:
    """The newest that is ready and older than that number."""
    wanted = select(model_versions).where(_c.model_id == model_id, _c.state == "ready", _c.number < number)
    row = conn.execute(wanted.order_by(_c.number.desc()).limit(1)).one_or_none()
    return None if row is None else VersionRow(*row)


def lock_versions(conn: Connection, model_id: str, *, shared: bool = False) -> None:
    """Until the transaction ends: a worker that leaves a version and a query that is given to it take turns."""
    conn.execute(_SHARE if shared else _LOCK, {"model": model_id})


def require_ready(conn: Connection, model_id: str) -> VersionRow:
    """The newest that is ready, or `model_not_ready`."""
    row = ready_version(conn, model_id)
    if row is None:
        raise LatticeError("model_not_ready")
    return row


def open_versions(conn: Connection, gateway_id: str) -> list[VersionRow]:
    """What this gateway has still to do, oldest first; after a restart too."""
    return [VersionRow(*row) for row in conn.execute(_OPEN, {"gateway": gateway_id})]


def begin_version(conn: Connection, model: ModelRow, number: int, now_ms: int) -> VersionRow | None:
    """`uploaded → compiling`; None where it ended meanwhile."""
    return _move(conn, model, number, {"state": "compiling"}, now_ms)


def finish_version(conn: Connection, model: ModelRow, number: int, ready: Ready, now_ms: int) -> VersionRow | None:
    """`→ ready`."""
    found: dict[str, Any] = msgspec.structs.asdict(ready)
    return _move(conn, model, number, found | {"state": "ready", "ended_at_ms": now_ms}, now_ms)


def fail_version(conn: Connection, model: ModelRow, number: int, reason: str, now_ms: int) -> VersionRow | None:
    """`→ failed(reason)`."""
    return _move(conn, model, number, {"state": "failed", "reason": reason, "ended_at_ms": now_ms}, now_ms)


def _move(conn: Connection, model: ModelRow, number: int, values: dict[str, Any], now_ms: int) -> VersionRow | None:
    statement = (
        update(model_versions)
        .where(_c.model_id == model.id, _c.number == number, _c.ended_at_ms.is_(None), _c.state != values["state"])
        .values(**values)
    )
    if not conn.execute(statement).rowcount:
        return None
    row = get_version(conn, model.id, number)
    _tell(conn, model, row, now_ms)
    return row


def _tell(conn: Connection, model: ModelRow, row: VersionRow, now_ms: int) -> None:
    body = {"model": model.id, "name": model.name, "version": row.number, "state": row.state, "reason": row.reason}
    hooked = model.webhook_url is not None
    add_event(conn, model.account_id, model.id, f"version.{row.state}", body, now_ms, hooked=hooked)
