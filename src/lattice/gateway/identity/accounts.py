"""Accounts: who owns keys, machines and money."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, bindparam, insert, select

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.store.schema import accounts, wallets

_INSERT = insert(accounts)
_INSERT_WALLET = insert(wallets)
_GET = select(accounts).where(accounts.c.id == bindparam("account"))


class AccountRow(msgspec.Struct, frozen=True):
    """One row of `accounts`."""

    id: str
    name: str
    created_at_ms: int


def create_account(conn: Connection, name: str, now_ms: int) -> AccountRow:
    """Make an account with an empty wallet."""
    row = AccountRow(new_id(Prefix.ACCOUNT, now_ms), name, now_ms)
    conn.execute(_INSERT, msgspec.to_builtins(row))
    conn.execute(_INSERT_WALLET, {"account_id": row.id, "available_micro": 0, "held_micro": 0})
    return row


def get_account(conn: Connection, account_id: str) -> AccountRow:
    """The account, or `not_found`."""
    row = conn.execute(_GET, {"account": account_id}).one_or_none()
    if row is None:
        raise LatticeError("not_found", "There is no account with that id.")
    return AccountRow(*row)


def list_accounts(conn: Connection, cursor: str | None = None, limit: int = 50) -> list[AccountRow]:
    """Accounts, newest first."""
    statement = select(accounts).order_by(accounts.c.id.desc()).limit(limit)
    if cursor is not None:
        statement = statement.where(accounts.c.id < cursor)
    return [AccountRow(*row) for row in conn.execute(statement)]
