"""Money: holds, settlements, grants and their double entries. All plain functions over a `Connection`.

Postings of a transaction sum to zero, a wallet always equals the sums of its entries, and a balance is never negative.
"""

from lattice.gateway.ledger.audit import Audit, check
from lattice.gateway.ledger.grants import Grant, grant
from lattice.gateway.ledger.holds import admit, settle, settle_partial, void
from lattice.gateway.ledger.prices import Price, cost, get_price, hold_amount, list_prices, padded_bytes, put_price
from lattice.gateway.ledger.queries import (
    Credits,
    EntryRow,
    UsageRow,
    credits,
    key_spend,
    list_entries,
    list_usage,
)
from lattice.gateway.ledger.reaper import Reaped, reap, recover
from lattice.gateway.works.records import Admission, Admitted, Ending, Settled, Settlement

__all__ = [
    "Admission",
    "Admitted",
    "Audit",
    "Credits",
    "Ending",
    "EntryRow",
    "Grant",
    "Price",
    "Reaped",
    "Settled",
    "Settlement",
    "UsageRow",
    "admit",
    "check",
    "cost",
    "credits",
    "get_price",
    "grant",
    "hold_amount",
    "key_spend",
    "list_entries",
    "list_prices",
    "list_usage",
    "padded_bytes",
    "put_price",
    "reap",
    "recover",
    "settle",
    "settle_partial",
    "void",
]
