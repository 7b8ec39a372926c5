"""Encrypted databases: ciphertexts that a user uploads once and many queries are compared with."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, bindparam, insert, select, update

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.queries.rows import QueryRow, end_waiting_for
from lattice.gateway.store.encrypted_schema import encrypted_databases

MAX_DATABASES = 100

_c = encrypted_databases.c
_OF_USER = (
    select(encrypted_databases)
    .where(_c.model_id == bindparam("model"), _c.user == bindparam("end_user"), _c.deleted_at_ms.is_(None))
    .order_by(_c.id.desc())
    .limit(MAX_DATABASES)
)


class DatabaseRow(msgspec.Struct, frozen=True):
    """One row, in the table's order."""

    id: str
    account_id: str
    model_id: str
    user: str
    blob_sha256: bytes
    bytes: int
    created_at_ms: int
    deleted_at_ms: int | None


def list_databases(conn: Connection, model_id: str, user: str) -> list[DatabaseRow]:
    """A user's databases for a model, newest first."""
    return [DatabaseRow(*row) for row in conn.execute(_OF_USER, {"model": model_id, "end_user": user})]


def add_database(conn: Connection, row: DatabaseRow) -> DatabaseRow:
    """Store it; the same bytes again are the same database."""
    known = list_databases(conn, row.model_id, row.user)
    for each in known:
        if each.blob_sha256 == row.blob_sha256:
            return each
    if len(known) >= MAX_DATABASES:
        raise LatticeError("too_many_uploads", f"A user has at most {MAX_DATABASES} databases for a model.")
    conn.execute(insert(encrypted_databases), msgspec.structs.asdict(row))
    return row


def new_database(account_id: str, model_id: str, user: str, sha256: bytes, size: int, now_ms: int) -> DatabaseRow:
    """A row that is not stored yet."""
    return DatabaseRow(new_id(Prefix.DATABASE, now_ms), account_id, model_id, user, sha256, size, now_ms, None)


def delete_database(conn: Connection, model_id: str, user: str, database_id: str, now_ms: int) -> list[QueryRow]:
    """Queries that name it fail from now on, as those do that wait for a worker, which are returned.

    Its bytes go with a sweep once no worker has a query that names it.
    """
    changed = conn.execute(
        update(encrypted_databases).where(
            _c.id == database_id, _c.model_id == model_id, _c.user == user, _c.deleted_at_ms.is_(None)
        ),
        {"deleted_at_ms": now_ms},
    ).rowcount
    if not changed:
        raise LatticeError("not_found", "There is no encrypted database with that id.")
    return end_waiting_for(conn, model_id, database_id, now_ms)
