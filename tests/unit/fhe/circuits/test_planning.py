"""Plans are pure: which rotations, how many products, which error, without a key or a ciphertext."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.fhe.circuits import polynomial
from lattice.fhe.circuits.matrix import (
    Goal,
    Layout,
    Limbs,
    MatrixPlan,
    cost,
    diagonals_of,
    plan_diagonals,
    stored_diagonals,
)
from lattice.fhe.circuits.rotations import mask, normalised, powers_of_two, route
from lattice.fhe.circuits.sums import sum_rotations, sum_stages
from tests.support.encrypted import noise, tiny_parameters

SLOTS = 32


def simulate(plan: MatrixPlan, stored: np.ndarray, v: np.ndarray) -> np.ndarray:
    """What the evaluator does, on clear slots."""
    out = np.zeros(len(v), dtype=complex)
    for giant, terms in zip(plan.product.giants, plan.product.terms[0], strict=True):
        inner = sum(stored[d] * np.roll(v, -plan.product.babies[b]) for _, b, d in terms)
        out += np.roll(inner, -giant)
    for stage in plan.fold:
        out = out + sum(np.roll(out, -step) for step in stage)
    return out


@settings(deadline=None)
@given(
    rows=st.integers(1, SLOTS),
    columns=st.integers(1, SLOTS),
    layout=st.sampled_from(Layout),
    goal=st.sampled_from(Goal),
    zeros=st.floats(0, 0.95),
    seed=st.integers(0, 1000),
)
def test_every_plan_multiplies(rows: int, columns: int, layout: Layout, goal: Goal, zeros: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = np.where(rng.random((rows, columns)) < zeros, 0.0, rng.uniform(-1, 1, (rows, columns)))
    if not m.any():
        m[0, 0] = 1.0
    diagonals, fold = diagonals_of(m, SLOTS, layout)
    plan = plan_diagonals(diagonals, SLOTS, goal=goal, fold=fold)
    v = rng.uniform(-1, 1, columns)
    full = np.zeros(SLOTS)
    full[:columns] = v
    if layout is not Layout.SPARSE:
        period = 1 << (max(columns, rows) - 1).bit_length()
        if layout is Layout.FOLDED and rows <= columns:
            period = 1 << (columns - 1).bit_length()
        full = np.tile(full[:period], SLOTS // period)
    out = simulate(plan, stored_diagonals(diagonals, plan), full)
    assert np.allclose(out[:rows], m @ v)
    if layout is Layout.SPARSE:
        assert np.allclose(out[rows:], 0.0), "slots outside the result stay zero"
    assert len(set(plan.product.babies)) == len(plan.product.babies)
    assert len(set(plan.product.giants)) == len(plan.product.giants)


def test_goals_trade_keys_for_time() -> None:
    fast = plan_diagonals(range(128), 4096, goal=Goal.TIME)
    lean = plan_diagonals(range(128), 4096, goal=Goal.KEYS)
    assert len(lean.rotations) <= len(fast.rotations)
    assert cost(fast.product, Limbs()) <= cost(lean.product, Limbs())
    assert len(lean.rotations) <= 22, "about twice the root of 128"


def test_the_design_plan_of_the_first_layer_is_found() -> None:
    """784-128 by four copies skewed by 32: 32 diagonals, 8 baby × 4 giant steps, 5 folds: 15 rotations."""
    plan = plan_diagonals(range(32), 4096, goal=Goal.KEYS, fold=sum_stages(32, stride=128))
    assert len(plan.rotations) == 15


def test_structured_matrices_need_few_rotations() -> None:
    diagonals, fold = diagonals_of(np.eye(8), SLOTS, Layout.SPARSE)
    assert plan_diagonals(diagonals, SLOTS, fold=fold).rotations == ()
    diagonals, _ = diagonals_of(np.eye(8, k=1), SLOTS, Layout.SPARSE)
    assert plan_diagonals(diagonals, SLOTS).rotations == (1,)


def test_sum_stages() -> None:
    assert sum_stages(8) == ((1,), (2,), (4,))
    assert sum_stages(8, radix=4) == ((1, 2, 3), (4,))
    assert sum_stages(16, stride=2, radix=4) == ((2, 4, 6), (8, 16, 24))
    assert sum_rotations(sum_stages(8), SLOTS) == (1, 2, 4)
    with pytest.raises(LatticeError, match="reaches further"):
        sum_rotations(sum_stages(64), SLOTS)


def test_rotations() -> None:
    assert normalised([-1, 0, 1, 33, 32], SLOTS) == (1, 31)
    assert powers_of_two(SLOTS) == (1, 2, 4, 8, 16)
    for steps in range(SLOTS):
        hops = route(steps, powers_of_two(SLOTS), SLOTS)
        assert sum(hops) % SLOTS == steps
        assert len(hops) == steps.bit_count()
    assert len(route(31, [1, 31], SLOTS)) == 1
    assert route(0, [], SLOTS) == ()
    with pytest.raises(LatticeError, match="No route"):
        route(3, [2], SLOTS)


def test_masks() -> None:
    assert mask(4, 2).tolist() == [1, 1, 0, 0]
    assert mask(4, [3]).tolist() == [0, 0, 0, 1]


def test_a_fit_says_its_error() -> None:
    for function in (np.sin, np.exp, lambda t: 1 / (1 + np.exp(-8 * t)), np.abs):
        for degree in (1, 4, 15):
            series = polynomial.fit(function, degree, (-1.5, 2.0))
            x = np.linspace(-1.5, 2.0, 4001)
            assert np.abs(series(x) - function(x)).max() <= series.error * (1 + 1e-9)
    odd = polynomial.fit(np.sin, 9)
    assert odd.coefficients[0::2] == (0.0,) * 5, "what an odd function lacks is exactly zero, and costs nothing"


def test_a_fit_within_an_error_uses_up_its_depth() -> None:
    series = polynomial.fit_within(lambda t: 1 / (1 + np.exp(-t)), 1e-6, (-8.0, 8.0))
    assert series.error <= 1e-6
    assert series.degree in {15, 31, 63}
    with pytest.raises(LatticeError, match="No degree"):
        polynomial.fit_within(np.sign, 1e-3)
    with pytest.raises(LatticeError, match="not an interval"):
        polynomial.fit(np.sin, 3, (1.0, 1.0))
    with pytest.raises(LatticeError, match="finite"):
        polynomial.fit(lambda t: np.where(t < 0, np.nan, t), 3, (-1.0, 1.0))


def test_powers_become_chebyshev() -> None:
    series = polynomial.from_powers([1.0, -2.0, 0.5, 4.0])
    x = noise(50)
    assert np.allclose(series(x), 1 - 2 * x + 0.5 * x**2 + 4 * x**3)


@pytest.mark.parametrize(("degree", "most"), [(3, 2), (7, 4), (15, 7), (31, 10), (63, 15)])
def test_few_relinearisations(degree: int, most: int) -> None:
    from fractions import Fraction

    from lattice.fhe.hal.rules import CiphertextType

    params = tiny_parameters()
    x = CiphertextType(6, Fraction(2**36))
    plan = polynomial.plan(params, x, polynomial.Series(tuple(noise(degree + 1))), Fraction(2**36))
    assert plan.relinearisations <= most
    assert plan.output == CiphertextType(6 - degree.bit_length(), Fraction(2**36))
    assert max(plan.relinearised_at) == 6
