"""What an account may read of its money: balance, usage, entries, and what a key has spent."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Table, bindparam, case, func, select, text

from lattice.core.ids import Prefix, is_id, new_id
from lattice.gateway.store.schema import entries, holds, usage, wallets, works

_WALLET = select(wallets.c.available_micro, wallets.c.held_micro).where(wallets.c.account_id == bindparam("account"))
_KEY_SPEND = select(func.sum(case((holds.c.state == "held", holds.c.amount_micro), else_=holds.c.charged_micro))).where(
    holds.c.key_id == bindparam("key"), text("state <> 'voided'")
)  # literally the index's condition


class Credits(msgspec.Struct, frozen=True):
    """An account's balance."""

    available_micro: int
    held_micro: int


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One metered answer."""

    id: str
    account_id: str
    key_id: str
    runtime_id: str
    work_id: str
    model: str
    task: str
    sealing: str
    prompt_tokens: int
    completion_tokens: int
    charged_micro: int
    created_at_ms: int


class EntryRow(msgspec.Struct, frozen=True, kw_only=True):
    """One posting."""

    id: str
    transaction_id: str
    kind: str
    ledger_account: str
    account_id: str
    amount_micro: int
    work_id: str | None
    reason: str | None
    created_at_ms: int


def credits(conn: Connection, account_id: str) -> Credits:
    """The balance; zero for an account that was never granted anything."""
    row = conn.execute(_WALLET, {"account": account_id}).one_or_none()
    return Credits(0, 0) if row is None else Credits(row.available_micro, row.held_micro)


def key_spend(conn: Connection, key_id: str) -> int:
    """What a key has spent, running work counted at its hold."""
    return int(conn.execute(_KEY_SPEND, {"key": key_id}).scalar() or 0)


def list_usage(conn: Connection, account_id: str, cursor: str | None = None, limit: int = 50) -> list[UsageRow]:
    """An account's usage, newest first, from behind `cursor` (the last id of the page before)."""
    return [UsageRow(**row) for row in _page(conn, usage, account_id, cursor, limit)]


def list_entries(
    conn: Connection, account_id: str, cursor: str | None = None, limit: int = 50, work_id: str | None = None
) -> list[EntryRow]:
    """An account's postings, newest first; with `work_id` those of one work or one worker."""
    conditions: list[ColumnElement[bool]] = []
    if work_id is not None and is_id(Prefix.WORKER, work_id):
        conditions = [
            entries.c.work_id == work_id,
            entries.c.id >= work_id.replace(Prefix.WORKER, Prefix.ENTRY, 1)[:14],
        ]
    elif work_id is not None:
        life = conn.execute(
            select(works.c.created_at_ms, works.c.ended_at_ms).where(
                works.c.id == work_id, works.c.account_id == account_id
            )
        ).one_or_none()
        if life is None:
            return []
        conditions = [entries.c.work_id == work_id, entries.c.id >= new_id(Prefix.ENTRY, life[0], bytes(10))]
        if life[1] is not None:
            conditions.append(entries.c.id < new_id(Prefix.ENTRY, life[1] + 1, bytes(10)))
    return [EntryRow(**row) for row in _page(conn, entries, account_id, cursor, limit, *conditions)]


def _page(
    conn: Connection, table: Table, account_id: str, cursor: str | None, limit: int, *conditions: ColumnElement[bool]
) -> list[dict[str, Any]]:
    statement = select(table).where(table.c.account_id == account_id, *conditions)
    if cursor is not None:
        statement = statement.where(table.c.id < cursor)
    return [dict(row) for row in conn.execute(statement.order_by(table.c.id.desc()).limit(limit)).mappings()]
