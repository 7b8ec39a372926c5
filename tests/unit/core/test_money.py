"""Money is whole micro-credits, rounded up, and printed exactly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.core.money import MICRO_PER_CREDIT, format_credits, token_cost


@pytest.mark.parametrize(
    ("tokens", "price", "cost"),
    [(0, 500, 0), (5, 0, 0), (1, 1, 1), (1_000_000, 7, 7), (1_000_001, 7, 8), (10**12, 10**9, 10**15)],
)
def test_costs(tokens: int, price: int, cost: int) -> None:
    assert token_cost(tokens, price) == cost


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_no_work_is_free_by_rounding_nor_dearer_than_one_micro_credit(tokens: int, price: int) -> None:
    exact = Fraction(tokens * price, 1_000_000)
    assert 0 <= token_cost(tokens, price) - exact < 1


@pytest.mark.parametrize(("tokens", "price"), [(-1, 1), (1, -1)])
def test_nothing_is_negative(tokens: int, price: int) -> None:
    with pytest.raises(ValueError, match="negative"):
        token_cost(tokens, price)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (1, "0.000001"),
        (1_500_000, "1.5"),
        (-1_500_000, "-1.5"),
        (-1, "-0.000001"),
        (10_000_000, "10"),
        (100_000_000_000, "100000"),
    ],
)
def test_credits_are_printed_exactly(amount: int, text: str) -> None:
    assert format_credits(amount) == text


@given(st.integers(-(10**18), 10**18))
def test_printed_credits_read_back(amount: int) -> None:
    assert Fraction(format_credits(amount)) * MICRO_PER_CREDIT == amount
