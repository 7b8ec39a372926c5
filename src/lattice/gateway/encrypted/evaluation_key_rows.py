"""Rows of `evaluation_keys`: for each model, end user and list of keys a few live sets, one for each secret."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.store.encrypted_schema import encrypted_models, evaluation_keys

MAX_SETS = 8
"""Live sets of one user for one list of keys: one for each device that has a secret of its own."""

_c = evaluation_keys.c
_LOCK = select(encrypted_models.c.id).where(encrypted_models.c.id == bindparam("model")).with_for_update()
_INSERT = insert(evaluation_keys)
_OF_USER = (
    select(evaluation_keys)
    .where(_c.model_id == bindparam("model"), _c.user == bindparam("end_user"), _c.deleted_at_ms.is_(None))
    .order_by(_c.id.desc())
)
_FITTING = _OF_USER.where(_c.keys_hash == bindparam("wanted"))
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
    device: str


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
    device: str = ""


def register_keys(conn: Connection, new: NewKeys, now_ms: int, replaces: str | None = None) -> KeysRow:
    """Store a set, in place of the user's set `replaces` where that is live; the same bytes again are the same set.

    Raises `too_many_keys` for one more than `MAX_SETS`.
    """
    conn.execute(_LOCK, {"model": new.model_id})  # on PostgreSQL two devices must not take one place
    live = fitting_keys(conn, new.model_id, new.user, new.keys_hash)
    known = next((row for row in live if row.blob_sha256 == new.blob_sha256), None)
    for row in live:
        if row.id == replaces and row != known:
            conn.execute(_END, {"keys": row.id, "now": now_ms})
    if known is not None:
        return known
    if sum(row.id != replaces for row in live) >= MAX_SETS:
        raise LatticeError("too_many_keys")
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


def fitting_keys(conn: Connection, model_id: str, user: str, keys_hash: bytes) -> list[KeysRow]:
    """The user's sets that fit a program, whichever version they were registered for; newest first."""
    params = {"model": model_id, "end_user": user, "wanted": keys_hash}
    return [KeysRow(*row) for row in conn.execute(_FITTING, params)]


def delete_keys(conn: Connection, model_id: str, user: str, keys_id: str, now_ms: int) -> None:
    """End a set; its bytes go with the next sweep."""
    get_keys(conn, model_id, user, keys_id)
    conn.execute(_END, {"keys": keys_id, "now": now_ms})
