"""Cheaper ways to lower what packing says: the same results, from fewer decompositions, bytes or levels."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import Circuit
from lattice.fhe.compiler.levels import products, search
from lattice.fhe.compiler.levels.options import Options
from lattice.fhe.compiler.levels.predict import predict
from lattice.fhe.hal import instructions as ops
from lattice.fhe.run import Session
from tests.support.circuits import built, compiled, inputs_of, network, periodic, results_in_clear

SLOTS = 4096


def test_rotations_of_one_value_share_its_decomposition() -> None:
    everywhere = periodic(SLOTS, SLOTS)
    turned = (steps.Rotate(1, 0, 5), steps.Rotate(2, 0, 9), steps.Add(3, 1, 2), steps.Rotate(4, 0, 9 + SLOTS))
    circuit = Circuit(SLOTS, 1, (everywhere,), (*turned, steps.Add(5, 3, 4)), (5,), (everywhere,))
    samples = np.random.default_rng(0).uniform(-1, 1, (2, SLOTS))
    made = built(circuit, samples)
    hoisted = [i for i in made.program.instructions if isinstance(i, ops.RotateHoisted)]
    assert [i.steps for i in hoisted] == [(5, 9)]
    assert not any(isinstance(i, ops.Rotate) for i in made.program.instructions)
    answer = Session(compiled(made, SLOTS, SLOTS)).run(samples)
    assert np.abs(answer.values - results_in_clear(circuit, samples, SLOTS)).max() < 1e-3


def test_a_product_over_q_is_the_same_product_with_shorter_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = network(np.random.default_rng(3), SLOTS, (64, 32, 16, 4))
    samples = np.random.default_rng(4).uniform(-1, 1, (3, 64))
    monkeypatch.setattr(products, "is_quicker_over_q", lambda *_: True)
    made = built(circuit, samples)
    assert not any(isinstance(i, ops.Matrix) for i in made.program.instructions)
    assert not any(weight.extended for weight in made.program.weights)
    errors = predict(made, inputs_of(circuit, samples))
    answer = Session(compiled(made, 64, 4)).run(samples)
    measured = np.abs(answer.values - results_in_clear(circuit, samples, 4))
    assert errors.deviation / 3 < np.sqrt((measured**2).mean()) < 3 * errors.deviation


def test_weights_are_read_over_q_only_where_there_are_very_many() -> None:
    params = built(network(np.random.default_rng(0), SLOTS, (64, 32)), np.ones((1, 64))).params

    def product(diagonals: int) -> steps.Matrix:
        terms = tuple((0, b, g * 8 + b) for g in range(1) for b in range(8))
        every = tuple(tuple((i, b, d + 8 * j) for i, b, d in terms) for j in range(diagonals // 8))
        giants = tuple(8 * j for j in range(diagonals // 8))
        return steps.Matrix((1,), (0,), np.ones((diagonals, 1)), tuple(range(8)), giants, (every,))

    many = product(1024)
    few_babies = steps.Matrix((1,), (0,), many.diagonals, many.babies, (0,), ((sum(many.terms[0], ()),),))
    assert not products.is_quicker_over_q(product(32), params, 0)
    assert products.is_quicker_over_q(few_babies, params, 0)


@pytest.mark.filterwarnings("ignore::lattice.fhe.run.OutOfRangeWarning")
def test_a_balanced_last_layer_errs_less_and_as_predicted() -> None:
    """Large values under small weights: at the chain's scale the weights would be rounded coarsely."""
    circuit = network(np.random.default_rng(1), SLOTS, (256, 128, 64))
    samples = np.random.default_rng(2).uniform(-8, 8, (4, 256))
    plain, balanced = (built(circuit, samples, scale_bits=24, balance=balance) for balance in (False, True))
    assert balanced.assignment.lowered
    assert balanced.params.id == plain.params.id
    before, after = (predict(made, inputs_of(circuit, samples)) for made in (plain, balanced))
    assert after.deviation < before.deviation / 1.5
    answer = Session(compiled(balanced, 256, 64)).run(samples)
    measured = np.abs(answer.values - results_in_clear(circuit, samples, 64))
    assert after.deviation / 3 < np.sqrt((measured**2).mean()) < 3 * after.deviation


def test_a_scale_that_others_depend_on_is_left_alone() -> None:
    weights = np.full((1, 1, 1), 0.01)
    everywhere = periodic(SLOTS, SLOTS)
    made_of = (
        steps.Combine((1,), (0,), np.full((1, 1, 1), 9.0)),
        steps.Square(2, 1),
        steps.Combine((3,), (2,), weights),
        steps.Combine((4,), (2,), weights),
    )
    circuit = Circuit(SLOTS, 1, (everywhere,), made_of, (3, 4), (everywhere, everywhere + SLOTS))
    made = built(circuit, np.ones((1, SLOTS)), scale_bits=24, balance=True)
    assert not made.assignment.lowered


def test_rings_that_are_too_small_for_a_model_are_not_packed_for() -> None:
    search.require_depth(4, 13, Options(), last_linear=True)
    with pytest.raises(LatticeError, match="6 levels") as raised:
        search.require_depth(6, 13, Options(), last_linear=True)
    assert raised.value.code == "model_too_deep"
    search.require_depth(6, 14, Options(), last_linear=True)


def test_results_that_may_be_shown_to_others_are_refused() -> None:
    """Nobody compiles a program as shareable that is not."""
    with pytest.raises(LatticeError, match="34 bits") as raised:
        Options(shareable=True)
    assert raised.value.code == "invalid_parameters"
