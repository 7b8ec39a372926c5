"""The first start: an owner account and its key, shown once."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, select

from lattice.gateway.identity.accounts import create_account
from lattice.gateway.identity.keys import NewKey, create_key
from lattice.gateway.identity.pepper import Pepper
from lattice.gateway.identity.scopes import ALL_SCOPES
from lattice.gateway.store.schema import accounts

_ANY = select(accounts.c.id).limit(1)


class OwnerKey(NamedTuple):
    """The owner's first key. `secret` is to be printed once and forgotten."""

    account_id: str
    key_id: str
    secret: str

    def __repr__(self) -> str:
        return f"OwnerKey(account_id={self.account_id!r}, key_id={self.key_id!r})"


def has_accounts(conn: Connection) -> bool:
    """Whether the database is in use."""
    return conn.execute(_ANY).first() is not None


def bootstrap_owner(conn: Connection, pepper: Pepper, now_ms: int) -> OwnerKey | None:
    """Make the owner on an empty database; None on every later start."""
    if has_accounts(conn):
        return None
    account = create_account(conn, "owner", now_ms)
    new = NewKey(account_id=account.id, name="owner", scopes=frozenset(str(scope) for scope in ALL_SCOPES))
    record, secret = create_key(conn, pepper, new, now_ms)
    return OwnerKey(account.id, record.id, secret)
