"""Money is an integer number of micro-credits; a credit is 1,000,000 of them. There are no floats in the ledger."""

from __future__ import annotations

from typing import NewType

MicroCredits = NewType("MicroCredits", int)

MICRO_PER_CREDIT = 1_000_000


def token_cost(tokens: int, micro_per_million: int) -> MicroCredits:
    """Price of `tokens` at micro-credits per million tokens, rounded up so that no work is free by rounding."""
    if tokens < 0 or micro_per_million < 0:
        raise ValueError("tokens and prices are never negative")
    return MicroCredits(-(-tokens * micro_per_million // 1_000_000))


def format_credits(amount: int) -> str:
    """Exact decimal credits, for people: 1500000 is '1.5'."""
    sign = "-" if amount < 0 else ""
    whole, micro = divmod(abs(amount), MICRO_PER_CREDIT)
    return f"{sign}{whole}.{micro:06d}".rstrip("0").rstrip(".")
