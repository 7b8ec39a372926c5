"""The ledger's own check of itself, for tests, the demo and operators."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, func, select

from lattice.gateway.ledger.postings import available, held
from lattice.gateway.store.encrypted_schema import workers
from lattice.gateway.store.schema import entries, holds, wallets, works

_UNBALANCED = (
    select(entries.c.transaction_id).group_by(entries.c.transaction_id).having(func.sum(entries.c.amount_micro) != 0)
)
_BY_ACCOUNT = select(entries.c.ledger_account, func.sum(entries.c.amount_micro)).group_by(entries.c.ledger_account)
_WALLETS = select(wallets)
_HELD = (
    select(holds.c.account_id, func.sum(holds.c.amount_micro))
    .where(holds.c.state == "held")
    .group_by(holds.c.account_id)
)
_HELD_BY_WORKERS = (
    select(workers.c.account_id, func.sum(workers.c.held_micro))
    .where(workers.c.held_micro > 0)
    .group_by(workers.c.account_id)
)
_STOPPED = select(workers.c.id).where(workers.c.ended_at_ms.is_not(None), workers.c.held_micro > 0)
_ORPHANS = (
    select(holds.c.work_id)
    .join(works, works.c.id == holds.c.work_id, isouter=True)
    .where((holds.c.state == "held") & (works.c.ended_at_ms.is_not(None) | works.c.id.is_(None)))
)


class Audit(msgspec.Struct, frozen=True):
    """`sum_micro` is 0 and `faults` empty in every healthy ledger; `held_micro` is 0 at rest."""

    sum_micro: int
    held_micro: int
    faults: tuple[str, ...]


def check(conn: Connection) -> Audit:
    """Add everything up. It reads the whole ledger, so run it on a reader."""
    sums = {account: int(amount) for account, amount in conn.execute(_BY_ACCOUNT)}
    held_by_rows = {account: int(amount) for account, amount in conn.execute(_HELD)}
    for account_id, amount in conn.execute(_HELD_BY_WORKERS):
        held_by_rows[account_id] = held_by_rows.get(account_id, 0) + int(amount)
    faults = [f"transaction {row.transaction_id} does not balance" for row in conn.execute(_UNBALANCED)]
    faults += [f"{row.work_id} ended and is still held" for row in conn.execute(_ORPHANS)]
    faults += [f"{row.id} stopped and still holds" for row in conn.execute(_STOPPED)]
    held_micro = 0
    for account_id, free, on_hold in conn.execute(_WALLETS):
        held_micro += on_hold
        if sums.get(available(account_id), 0) != free:
            faults.append(f"{account_id}: available is {free}, its entries say {sums.get(available(account_id), 0)}")
        if sums.get(held(account_id), 0) != on_hold:
            faults.append(f"{account_id}: held is {on_hold}, its entries say {sums.get(held(account_id), 0)}")
        if held_by_rows.pop(account_id, 0) != on_hold:
            faults.append(f"{account_id}: held is {on_hold}, which is not the sum of its holds")
    faults += [f"{account_id} has holds and no wallet" for account_id in held_by_rows]
    return Audit(sum(sums.values()), held_micro, tuple(faults))
