"""Double entry: the rows of `entries` and the wallets beside them, always changed together.

Each customer account has `<acc>:available` and `<acc>:held`; the house has `lattice:revenue` and `lattice:grants`. A
transaction's `account_id` is the customer's on every row, so that one account's list shows whole transactions.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, union_all, update

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.store.prepared import Prepared
from lattice.gateway.store.schema import entries, wallets

REVENUE = "lattice:revenue"
GRANTS = "lattice:grants"


def available(account_id: str) -> str:
    """The ledger account of what an account may spend."""
    return f"{account_id}:available"


def held(account_id: str) -> str:
    """The ledger account of what is set aside for running work."""
    return f"{account_id}:held"


_SHARED = ("transaction_id", "kind", "account_id", "work_id", "reason", "created_at_ms")
_OWN = ("id", "ledger_account", "amount_micro")


def _insert_rows(count: int) -> Prepared:
    rows = [
        select(
            *(bindparam(name, type_=entries.c[name].type) for name in _SHARED),
            *(bindparam(f"{name}_{row}", type_=entries.c[name].type) for name in _OWN),
        )
        for row in range(count)
    ]
    return Prepared(insert(entries).from_select([*_SHARED, *_OWN], union_all(*rows)))


# One statement for a whole transaction: cheaper than an executemany, and one round trip to PostgreSQL.
_INSERT = {2: _insert_rows(2), 3: _insert_rows(3)}

_HOLD = Prepared(
    update(wallets)
    .where(wallets.c.account_id == bindparam("account"), wallets.c.available_micro >= bindparam("amount"))
    .values(
        available_micro=wallets.c.available_micro - bindparam("amount"),
        held_micro=wallets.c.held_micro + bindparam("amount"),
    )
)
_RELEASE = Prepared(
    update(wallets)
    .where(wallets.c.account_id == bindparam("account"))
    .values(
        available_micro=wallets.c.available_micro + bindparam("refund"),
        held_micro=wallets.c.held_micro - bindparam("amount"),
    )
)
_CREDIT = (
    update(wallets)
    .where(wallets.c.account_id == bindparam("account"))
    .values(available_micro=wallets.c.available_micro + bindparam("amount"))
)
_OPEN = insert(wallets).from_select(
    ["account_id", "available_micro", "held_micro"],
    select(
        bindparam("account", type_=wallets.c.account_id.type),
        bindparam("zero", 0, type_=wallets.c.available_micro.type),
        bindparam("zero_", 0, type_=wallets.c.held_micro.type),
    ).where(~select(1).where(wallets.c.account_id == bindparam("account")).exists()),
)


def post_hold(conn: Connection, account_id: str, amount: int, work_id: str, now_ms: int, kind: str = "hold") -> None:
    """Set `amount` aside, or raise `credits_exhausted` without a trace."""
    if not _HOLD.change(conn, {"account": account_id, "amount": amount}):
        raise LatticeError("credits_exhausted")
    _post(conn, kind, account_id, work_id, now_ms, (available(account_id), -amount), (held(account_id), amount))


def post_release(
    conn: Connection, kind: str, account_id: str, amount: int, charge: int, work_id: str, now_ms: int
) -> None:
    """End a hold of `amount`: `charge` becomes revenue, the rest returns."""
    refund = amount - charge
    _RELEASE.change(conn, {"account": account_id, "amount": amount, "refund": refund})
    rows = [(held(account_id), -amount)]
    if charge:
        rows.append((REVENUE, charge))
    if refund:
        rows.append((available(account_id), refund))
    _post(conn, kind, account_id, work_id, now_ms, *rows)


def post_grant(
    conn: Connection, account_id: str, amount: int, transaction_id: str, reason: str | None, now_ms: int
) -> None:
    """Credit an account out of `lattice:grants`."""
    conn.execute(_OPEN, {"account": account_id})
    conn.execute(_CREDIT, {"account": account_id, "amount": amount})
    rows = ((GRANTS, -amount), (available(account_id), amount))
    _post(conn, "grant", account_id, None, now_ms, *rows, transaction_id=transaction_id, reason=reason)


def _post(
    conn: Connection,
    kind: str,
    account_id: str,
    work_id: str | None,
    now_ms: int,
    *rows: tuple[str, int],
    transaction_id: str | None = None,
    reason: str | None = None,
) -> None:
    # Neighbouring ids, so that a transaction's rows stay together and in order in a list.
    first = new_id(Prefix.ENTRY, now_ms)[:-1]
    params: dict[str, Any] = {
        "transaction_id": transaction_id or f"{first}0",
        "kind": kind,
        "account_id": account_id,
        "work_id": work_id,
        "reason": reason,
        "created_at_ms": now_ms,
    }
    for row, (ledger_account, amount) in enumerate(rows):
        params[f"id_{row}"] = f"{first}{row}"
        params[f"ledger_account_{row}"] = ledger_account
        params[f"amount_micro_{row}"] = amount
    _INSERT[len(rows)].change(conn, params)
