"""Rows of `evaluation_keys`: one live set for each model, end user and list of keys, for all the user's clients."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.store.schema import evaluation_keys

_c = evaluation_keys.c
_INSERT = insert(evaluation_keys)
_OF_USER = (
    select(evaluation_keys)
    .where(_c.model_id == bindparam("model"), _c.user == bindparam("end_user"), _c.deleted_at_ms.is_(None))
    .order_by(_c.id.desc())
    .limit(100)
)
_END = (
    update(evaluation_keys)
    .where(_c.id == bindparam("keys"), _c.deleted_at_ms.is_(None))
    .values(deleted_at_ms=bindparam("now"))
)


class KeysRow(msgspec.Struct, frozen=True):
    """One row, in the table's order."""

    id: str
    account_id: str
    model_id: str
    user: str
    parameters_id: str
    keys_hash: bytes
    blob_sha256: bytes
    public_key_sha256: bytes | None
    size: int = msgspec.field(name="bytes")
    created_at_ms: int
    deleted_at_ms: int | None


class NewKeys(msgspec.Struct, frozen=True, kw_only=True):
    """A checked set."""

    account_id: str
    model_id: str
    user: str
    parameters_id: str
    keys_hash: bytes
    blob_sha256: bytes
    public_key_sha256: bytes
    size: int = msgspec.field(name="bytes")


def register_keys(conn: Connection, new: NewKeys, now_ms: int) -> KeysRow:
    """Store a set in place of the user's earlier one for the same list; the same bytes again are the same set."""
    for row in list_keys(conn, new.model_id, new.user):
        if row.keys_hash == new.keys_hash and row.blob_sha256 == new.blob_sha256:
            return row
        if row.keys_hash == new.keys_hash:
            conn.execute(_END, {"keys": row.id, "now": now_ms})
    row = KeysRow(
        id=new_id(Prefix.EVALUATION_KEYS, now_ms),
        created_at_ms=now_ms,
        deleted_at_ms=None,
        **msgspec.structs.asdict(new),
    )
    conn.execute(_INSERT, msgspec.to_builtins(row, builtin_types=(bytes,)))
    return row


def list_keys(conn: Connection, model_id: str, user: str) -> list[KeysRow]:
    """A user's live sets for a model, newest first."""
    return [KeysRow(*row) for row in conn.execute(_OF_USER, {"model": model_id, "end_user": user})]


def get_keys(conn: Connection, model_id: str, user: str, keys_id: str) -> KeysRow:
    """One of a user's live sets, or `not_found`."""
    for row in list_keys(conn, model_id, user):
        if row.id == keys_id:
            return row
    raise LatticeError("not_found", "There are no evaluation keys with that id.")


def fitting_keys(conn: Connection, model_id: str, user: str, keys_hash: bytes) -> KeysRow | None:
    """The user's set that fits a program, whichever version it was registered for."""
    return next((row for row in list_keys(conn, model_id, user) if row.keys_hash == keys_hash), None)


def delete_keys(conn: Connection, model_id: str, user: str, keys_id: str, now_ms: int) -> None:
    """End a set; its bytes go with the next sweep."""
    get_keys(conn, model_id, user, keys_id)
    conn.execute(_END, {"keys": keys_id, "now": now_ms})
