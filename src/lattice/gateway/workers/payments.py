"""Where credits come from: a small adapter that an operator can replace. By default an administrator grants them."""

from __future__ import annotations

from typing import Protocol

import msgspec
from sqlalchemy import Connection

from lattice.gateway.identity.keys import KeyRecord
from lattice.gateway.identity.scopes import Scope
from lattice.gateway.ledger import Grant, grant


class TopUp(msgspec.Struct, frozen=True, kw_only=True):
    """Credits that somebody wants to buy. `reference` makes it happen once."""

    account_id: str
    amount_micro: int
    reference: str
    now_ms: int


class PaymentAdapter(Protocol):
    """Takes payment for a top-up and books it in the same transaction, or raises."""

    def top_up(self, conn: Connection, asked_by: KeyRecord, wanted: TopUp) -> None:
        """Credit the account. Raises what the catalogue has for a payment that did not come about."""
        ...


class AdminGrants:
    """No payment at all: an administrator's word is enough, and nobody else's is."""

    def top_up(self, conn: Connection, asked_by: KeyRecord, wanted: TopUp) -> None:
        """Grant the credits; `insufficient_scopes` for anybody but an administrator."""
        asked_by.require_scope(Scope.ADMIN)
        grant(
            conn,
            Grant(
                account_id=wanted.account_id,
                amount_micro=wanted.amount_micro,
                reference=f"top-up:{wanted.reference}",
                now_ms=wanted.now_ms,
                reason="top-up",
            ),
        )
