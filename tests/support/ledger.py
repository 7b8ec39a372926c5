"""A ledger in memory, and works to run through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, make_url

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.identity import AccountRow, create_account
from lattice.gateway.ledger import Admission, Ending, Grant, Settlement, grant
from lattice.gateway.store.engines import writer_engine
from lattice.gateway.store.tables import metadata

NOW = 1_767_225_600_000

T = TypeVar("T")


@contextmanager
def memory() -> Iterator[Connection]:
    """An empty database in memory, inside a transaction."""
    engine = writer_engine(make_url("sqlite://"))
    with engine.connect() as conn:
        metadata.create_all(conn)
        yield conn
        conn.rollback()
    engine.dispose()


def savepoint(conn: Connection, fn: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Run a write as the store's writer does."""
    with conn.begin_nested():
        return fn(conn, *args, **kwargs)


def refusal(conn: Connection, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> str | None:
    """Run a write; the code of the error that it raised, if it did."""
    try:
        savepoint(conn, fn, *args, **kwargs)
    except LatticeError as error:
        return error.code
    return None


def account(conn: Connection, credits: int = 0, name: str = "someone") -> AccountRow:
    """An account with a balance."""
    row = create_account(conn, name, NOW)
    if credits:
        grant(conn, Grant(account_id=row.id, amount_micro=credits, reference=row.id, now_ms=NOW))
    return row


def admission(account_id: str, amount: int = 0, **changes: Any) -> Admission:
    """A work that asks to run for a minute."""
    members: dict[str, Any] = {
        "work_id": new_id(Prefix.WORK, NOW),
        "account_id": account_id,
        "key_id": "key_one",
        "runtime_id": "lat_one",
        "gateway_id": "gw_one",
        "model": "lattice:tiny",
        "task": "chat",
        "sealing": "gateway",
        "envelope_hash": b"e" * 32,
        "amount_micro": amount,
        "now_ms": NOW,
        "deadline_ms": NOW + 600_000,
        "lease_expires_ms": NOW + 60_000,
    }
    return Admission(**members | changes)


def settlement(work_id: str, cost: int, attempt: int = 1, **changes: Any) -> Settlement:
    """An answer of 10 tokens to 20."""
    members: dict[str, Any] = {"prompt_tokens": 20, "completion_tokens": 10, "now_ms": NOW + 1}
    return Settlement(work_id=work_id, attempt=attempt, cost_micro=cost, **members | changes)


def ending(work_id: str, attempt: int = 1, **changes: Any) -> Ending:
    """A failure."""
    members: dict[str, Any] = {"state": "failed", "reason": "runtime_failed", "now_ms": NOW + 1}
    return Ending(work_id=work_id, attempt=attempt, **members | changes)
