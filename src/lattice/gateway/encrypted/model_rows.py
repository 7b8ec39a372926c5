"""Rows of `encrypted_models`: a name, who may see it, where its weights may go, and how it is to be run."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, bindparam, insert, or_, select, update

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.store.encrypted_schema import encrypted_models

Visibility = Literal["private", "public"]
Exposure = Literal["own", "hosted", "marketplace"]

_c = encrypted_models.c
_INSERT = insert(encrypted_models)
_GET = select(encrypted_models).where(_c.id == bindparam("model"), _c.deleted_at_ms.is_(None))
_BY_NAME = select(_c.id).where(
    _c.account_id == bindparam("account"), _c.name == bindparam("called"), _c.deleted_at_ms.is_(None)
)


class ModelRow(msgspec.Struct, frozen=True):
    """One row, in the table's order. `webhook_secret` is sealed."""

    id: str
    account_id: str
    name: str
    visibility: Visibility
    weights_exposure: Exposure
    settings: str
    webhook_url: str | None
    webhook_secret: bytes | None
    created_at_ms: int
    deleted_at_ms: int | None


class NewModel(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is to be."""

    account_id: str
    name: str
    visibility: Visibility = "private"
    weights_exposure: Exposure = "own"
    settings: str = "{}"
    webhook_url: str | None = None
    webhook_secret: bytes | None = None


def create_model(conn: Connection, new: NewModel, now_ms: int) -> ModelRow:
    """Store a model; `name_taken` where the account has one of that name."""
    _require_free(conn, new.account_id, new.name)
    members: dict[str, Any] = msgspec.structs.asdict(new)
    row = ModelRow(id=new_id(Prefix.MODEL, now_ms), created_at_ms=now_ms, deleted_at_ms=None, **members)
    conn.execute(_INSERT, msgspec.structs.asdict(row))
    return row


def get_model(conn: Connection, account_id: str, model_id: str) -> ModelRow:
    """A model of this account, or `not_found`."""
    row = find_model(conn, model_id)
    if row is None or row.account_id != account_id:
        raise LatticeError("not_found", "There is no encrypted model with that id.")
    return row


def find_model(conn: Connection, model_id: str) -> ModelRow | None:
    """Anybody's, unless it is deleted."""
    row = conn.execute(_GET, {"model": model_id}).one_or_none()
    return None if row is None else ModelRow(*row)


def model_named(conn: Connection, account_id: str, name: str) -> str | None:
    """The id of the account's model of that name."""
    found: str | None = conn.execute(_BY_NAME, {"account": account_id, "called": name}).scalar()
    return found


def list_models(
    conn: Connection, account_id: str, cursor: str | None = None, limit: int = 50, name: str | None = None
) -> list[ModelRow]:
    """An account's models, newest first."""
    statement = select(encrypted_models).where(_c.account_id == account_id, _c.deleted_at_ms.is_(None))
    if cursor is not None:
        statement = statement.where(_c.id < cursor)
    if name is not None:
        statement = statement.where(_c.name == name)
    return [ModelRow(*row) for row in conn.execute(statement.order_by(_c.id.desc()).limit(limit))]


def visible_models(conn: Connection, account_id: str, limit: int) -> list[ModelRow]:
    """An account's own and everybody's public ones, newest first."""
    statement = (
        select(encrypted_models)
        .where(_c.deleted_at_ms.is_(None), or_(_c.account_id == account_id, _c.visibility == "public"))
        .order_by(_c.id.desc())
        .limit(limit)
    )
    return [ModelRow(*row) for row in conn.execute(statement)]


def change_model(conn: Connection, account_id: str, model_id: str, changes: dict[str, Any]) -> ModelRow:
    """Set columns; `name_taken` where the new name is in use."""
    row = get_model(conn, account_id, model_id)
    if changes.get("name", row.name) != row.name:
        _require_free(conn, account_id, changes["name"])
    if changes:
        conn.execute(update(encrypted_models).where(_c.id == model_id).values(**changes))
    return get_model(conn, account_id, model_id)


def delete_model(conn: Connection, account_id: str, model_id: str, now_ms: int) -> None:
    """End it: its name is free, its tokens open nothing, its blobs go with the next sweep."""
    get_model(conn, account_id, model_id)
    conn.execute(update(encrypted_models).where(_c.id == model_id).values(deleted_at_ms=now_ms))


def _require_free(conn: Connection, account_id: str, name: str) -> None:
    if model_named(conn, account_id, name) is not None:
        raise LatticeError("name_taken")
