"""The arithmetic of time and money: nothing drifts, nothing is sold that is not covered, nothing past it is billed."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from lattice.gateway.workers import slices
from lattice.gateway.workers.slices import DRAIN_MS, SLICE_MS, Meter

prices = st.integers(1, 10**6)
moments = st.integers(0, 10**6)


@given(price=prices, cuts=st.lists(st.integers(0, 10**7), min_size=1))
def test_however_time_is_cut_it_costs_the_same(price: int, cuts: list[int]) -> None:
    total = spent = 0
    for cut in cuts:
        spent += slices.cost(total + cut, price) - slices.cost(total, price)
        total += cut
    assert spent == slices.cost(total, price)


@given(price=prices, budget=st.integers(0, 10**12))
def test_the_affordable_time_is_the_longest(price: int, budget: int) -> None:
    longest = slices.affordable(budget, price)
    assert slices.cost(longest, price) <= budget < slices.cost(longest + 1, price)


@given(price=prices, billed=moments, now=moments, available=st.integers(0, 10**10))
def test_a_first_slice_is_covered_whole_with_its_reserve(price: int, billed: int, now: int, available: int) -> None:
    meter = slices.begin(billed, price, now, available)
    if meter is None:
        assert slices.cost(billed + DRAIN_MS + 1, price) - slices.cost(billed, price) > available
    else:
        assert 0 <= meter.held_micro <= available
        assert now < meter.paid_until_ms <= now + SLICE_MS
        assert meter.end_ms == meter.paid_until_ms + DRAIN_MS


@given(price=prices, steps=st.lists(st.tuples(st.integers(-30_000, 30_000), st.integers(0, 10**7)), max_size=20))
def test_a_meter_never_holds_more_than_it_was_given(price: int, steps: list[tuple[int, int]]) -> None:
    meter, wallet, now = slices.begin(0, price, 10**6, 10**7), 10**7, 10**6
    assert meter is not None
    wallet -= meter.held_micro
    for step, gift in steps:
        now, wallet = now + step, wallet + gift
        seen = slices.observe(meter, now)
        assert meter.seen_ms <= seen.seen_ms <= meter.end_ms
        longer = slices.extend(seen, now, wallet)
        assert longer.paid_until_ms >= seen.paid_until_ms
        assert longer.paid_until_ms <= max(seen.paid_until_ms, max(now, seen.seen_ms) + SLICE_MS)
        wallet -= longer.held_micro + longer.billed_micro - meter.held_micro - meter.billed_micro
        assert wallet >= 0
        meter = longer


def test_free_time_is_sold_for_ever() -> None:
    meter = slices.begin(0, 0, 5, 0)
    assert meter == Meter(0, 0, 5, 5 + SLICE_MS)
    assert slices.extend(slices.observe(meter, 9_000), 9_000, 0).paid_until_ms == 9_000 + SLICE_MS
