"""Credits as people write them, to the exact micro-credit."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from lattice.core.errors import LatticeError
from lattice.core.money import MICRO_PER_CREDIT


def micro_credits(text: str) -> int:
    """Credits in decimal ("2.5") as micro-credits, or `invalid_request` for what is not a positive exact amount."""
    try:
        amount = Decimal(text) * MICRO_PER_CREDIT
        whole = int(amount)
    except (InvalidOperation, ValueError, OverflowError):
        raise LatticeError("invalid_request", f"{text!r} is not an amount of credits, such as 2.5.") from None
    if amount != whole or not 0 < whole < 2**63:
        raise LatticeError("invalid_request", "An amount is positive and has at most six decimals.")
    return whole
