"""Levels and scales: exact, as low as can be, and never at the price of security."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.security import Security, max_log_qp
from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import Circuit
from lattice.fhe.compiler.levels import parameters, wiring
from lattice.fhe.compiler.levels.assign import Scales, assign
from lattice.fhe.compiler.levels.lower import chain_of
from lattice.fhe.compiler.levels.parameters import Need
from lattice.fhe.hal import instructions as ops
from tests.support.circuits import built, network, periodic, random_circuit

SLOTS = 4096


def squares(adds: tuple[steps.Step, ...], outputs: tuple[int, ...]) -> Circuit:
    everywhere = periodic(SLOTS, SLOTS)
    return Circuit(SLOTS, 1, (everywhere,), adds, outputs, (everywhere,) * len(outputs))


def test_the_last_matrix_stays_at_level_zero_and_takes_no_level() -> None:
    circuit = network(np.random.default_rng(0), SLOTS, (16, 8, 4, 2))
    made = built(circuit, np.ones((4, 16)))
    assert made.assignment.depth == 4  # dense, square, dense, square
    assert made.program.checked.outputs[0].level == 0
    rescales = [i for i in made.program.instructions if isinstance(i, ops.Rescale)]
    assert len(rescales) == 4


def test_results_that_would_not_fit_beside_coarse_weights_are_rescaled() -> None:
    circuit = network(np.random.default_rng(0), SLOTS, (16, 8))
    made = built(circuit, np.full((1, 16), 1e5))
    assert made.assignment.depth == 1


@pytest.mark.parametrize("seed", range(30))
def test_scales_are_exact_wherever_two_values_meet(seed: int) -> None:
    """Whatever the circuit, `rules` (which compare exact fractions) accept the program, and levels never go up."""
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, SLOTS, 8, depth=2)
    made = built(circuit, rng.uniform(-1, 1, (2, 2 * SLOTS)), scale_bits=24)
    checked = made.program.checked
    scales = Scales(circuit, made.assignment, chain_of(made.params))
    for value, register in enumerate(made.lowered.registers):
        kind = checked.types[register]
        assert kind.level <= made.params.max_level
        if not made.assignment.unrescaled:
            assert kind.scale == scales.of(value)


def test_linear_steps_bring_the_scale_back_exactly() -> None:
    circuit = network(np.random.default_rng(1), SLOTS, (16, 8, 4, 2))
    made = built(circuit, np.ones((4, 16)))
    kinds = [made.program.checked.types[register] for register in made.lowered.registers]
    delta = made.params.scale
    assert kinds[1].scale == kinds[3].scale == delta
    assert kinds[2].scale == delta**2 / Fraction(prod(made.params.dropped(kinds[2].level + 1)))


def test_a_residual_sum_drops_the_shortcut_and_adjusts_only_what_it_must() -> None:
    shortcut = squares((steps.Square(1, 0), steps.Add(2, 1, 0)), (2,))
    found = assign(shortcut)
    # x enters at the scale of x² only by adjusting: x² = Δ²/q whatever Δ is, so x is multiplied by 1 on its way.
    assert found.depth == 1
    assert len(found.adjusted) == 1
    free = squares((steps.Square(1, 0), steps.Combine((2,), (0,), np.ones((1, 1, 1))), steps.Add(3, 1, 2)), (3,))
    assert not assign(free).adjusted  # the linear step is asked for the square's scale instead


def test_parameters_never_pass_the_bound() -> None:
    """Every shape that is offered is within the table, for every ring, depth and security level."""
    for security in Security:
        for log_n in range(10, 17):
            for depth in range(0, 30, 3):
                need = Need(depth, 28, (50,), True)
                for shape in parameters.shapes(need, log_n, security):
                    assert shape.log_qp <= max_log_qp(log_n, security)


def test_digits_are_counted_where_keys_are_switched() -> None:
    """No key is switched at the top of this chain, so special primes are those that give one digit below it."""
    need = Need(4, 20, (32,), True)
    above, below = (parameters.choose(need._replace(unswitched=levels), 13, Security.CLASSICAL) for levels in (0, 1))
    assert [len(params.key_switch_context(3, 3).digits) for params in (above, below)] == [2, 1]
    assert max(params.log_qp for params in (above, below)) <= 214


def test_chosen_primes_are_checked_by_the_constructor_of_parameters() -> None:
    params = parameters.choose(Need(4, 26, (50,), True), 13, Security.CLASSICAL)
    assert prod(params.primes()) <= 1 << 214
    assert params.max_level == 4


def test_too_deep_a_model_is_told_what_it_needs_and_what_there_is() -> None:
    with pytest.raises(LatticeError) as caught:
        parameters.choose(Need(12, 26, (50,), True), 13, Security.CLASSICAL)
    assert caught.value.code == "model_too_deep"
    assert caught.value.details["depth"] == 12
    assert caught.value.details["bits_needed"] > caught.value.details["bits_available"] == 214


def test_junk_is_masked_before_it_leaves() -> None:
    places = np.where(np.arange(SLOTS) < 4, np.arange(SLOTS), steps_junk()).astype(np.int32)
    circuit = Circuit(SLOTS, 1, (periodic(SLOTS, SLOTS),), (steps.Square(1, 0),), (1,), (places,))
    last = wiring.masked(circuit).steps[-1]
    assert isinstance(last, steps.Combine)
    assert last.weights[0, 0].sum() == 4


def steps_junk() -> int:
    return steps.JUNK


@pytest.mark.parametrize(
    "wrong",
    [
        (steps.Square(2, 0),),
        (steps.Square(1, 5),),
        (steps.Square(1, 0), steps.Square(1, 0)),
        (steps.Combine((1,), (0,), np.ones((1, 1, 3))),),
        (steps.Combine((1,), (0,), np.full((1, 1, 1), np.nan)),),
    ],
)
def test_malformed_circuits_are_refused(wrong: tuple[steps.Step, ...]) -> None:
    with pytest.raises(LatticeError, match="cannot be lowered"):
        wiring.check(squares(wrong, (1,)))
