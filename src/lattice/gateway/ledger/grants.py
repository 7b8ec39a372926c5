"""Credits that the operator gives. A grant's reference makes it happen once, however often it is asked for."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, bindparam, select

from lattice.core.errors import LatticeError
from lattice.gateway.ledger.postings import GRANTS, post_grant
from lattice.gateway.store.schema import accounts, entries

MAX_GRANT_MICRO = 10**15

_ACCOUNT = select(accounts.c.id).where(accounts.c.id == bindparam("account"))
_FIND = select(entries.c.account_id, entries.c.amount_micro).where(
    entries.c.transaction_id == bindparam("transaction"),
    entries.c.ledger_account == GRANTS,
    entries.c.kind == "grant",
)


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Credits for an account. `reference` names the grant for ever: a fresh id, or a hash of who asks and their key."""

    account_id: str
    amount_micro: int
    reference: str
    now_ms: int
    reason: str | None = None


def grant(conn: Connection, given: Grant) -> bool:
    """Credit the account once; False where this reference had granted the same already.

    Raises `idempotency_conflict` where the reference granted something else, `not_found` for an unknown account.
    """
    if not 0 < given.amount_micro <= MAX_GRANT_MICRO:
        raise LatticeError("invalid_request", f"`amount_micro` must be from 1 to {MAX_GRANT_MICRO}.")
    transaction = f"grant:{given.reference}"
    old = conn.execute(_FIND, {"transaction": transaction}).one_or_none()
    if old is not None:
        if (old.account_id, -old.amount_micro) != (given.account_id, given.amount_micro):
            raise LatticeError("idempotency_conflict", "This grant was made before with another account or amount.")
        return False
    if conn.execute(_ACCOUNT, {"account": given.account_id}).one_or_none() is None:
        raise LatticeError("not_found", "There is no account with that id.")
    post_grant(conn, given.account_id, given.amount_micro, transaction, given.reason, given.now_ms)
    return True
