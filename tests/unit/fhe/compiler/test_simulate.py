"""The simulator is the specification of every step of a circuit: each is compared with its formula, slot by slot."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import simulate
from lattice.fhe.compiler.circuit import (
    JUNK,
    ZERO,
    Add,
    Circuit,
    Combine,
    Matrix,
    Multiply,
    Polynomial,
    Rotate,
    Square,
    Step,
    Subtract,
)

SLOTS = 8
X = np.arange(SLOTS, dtype=np.float64) + 1
Y = np.cos(X)


def value_of(*steps: Step, out: int) -> np.ndarray:
    places = np.arange(SLOTS, dtype=np.int32)
    circuit = Circuit(SLOTS, 1, (places, places), steps, (out,), (places,))
    return simulate.evaluate(circuit, [X, Y])[out]


def test_entrywise_steps_and_rotations_to_the_left() -> None:
    assert np.array_equal(value_of(Rotate(2, 0, 3), out=2), [X[(s + 3) % SLOTS] for s in range(SLOTS)])
    assert np.array_equal(value_of(Add(2, 0, 1), out=2), X + Y)
    assert np.array_equal(value_of(Subtract(2, 0, 1), out=2), X - Y)
    assert np.array_equal(value_of(Multiply(2, 0, 1), Square(3, 2), out=3), (X * Y) ** 2)


def test_a_polynomial_is_a_chebyshev_series_on_its_interval() -> None:
    got = value_of(Polynomial(2, 0, (0.5, -1.0, 2.0), (1.0, 9.0)), out=2)
    t = (2 * X - 10) / 8
    assert np.allclose(got, 0.5 - t + 2 * (2 * t * t - 1))


def test_a_matrix_step_is_its_formula() -> None:
    random = np.random.default_rng(1)
    diagonals = random.normal(size=(4, SLOTS))
    bias = random.normal(size=(2, SLOTS))
    terms = ((((0, 0, 0), (1, 1, 1)), ((0, 1, 2),)), ((), ((1, 0, 3),)))
    step = Matrix((2, 3), (0, 1), diagonals, (0, 5), (0, 2), terms, fold=((4,), (1, 2)), bias=bias)
    for at, out in enumerate((2, 3)):
        got = value_of(step, out=out)
        for s in range(SLOTS):
            total = 0.0
            for fold in (0, 4, 1, 2, 5, 6):  # stage (4) then stage (1, 2): every sum of one choice each
                for j, giant in enumerate((0, 2)):
                    for i, b, d in terms[at][j]:
                        place = (s + fold + giant) % SLOTS
                        total += diagonals[d][place] * (X, Y)[i][(place + (0, 5)[b]) % SLOTS]
            assert np.isclose(got[s], total + bias[at][s])


def test_a_combination_has_periodic_weights() -> None:
    weights = np.array([[[1.0, 2.0], [3.0, 4.0]]])
    got = value_of(Combine((2,), (0, 1), weights, fold=((4,),), bias=np.array([[10.0, 20.0]])), out=2)
    w0, w1 = np.tile([1.0, 2.0], 4), np.tile([3.0, 4.0], 4)
    inner = w0 * X + w1 * Y
    assert np.allclose(got, inner + np.roll(inner, -4) + np.tile([10.0, 20.0], 4))


def test_a_batch_is_padded_and_replicas_are_averaged() -> None:
    pack = np.array([0, 1, 2, 3, ZERO, ZERO, ZERO, ZERO], dtype=np.int32)  # two samples of two features
    places = np.array([0, 1, 2, 3, JUNK, 0, ZERO, ZERO], dtype=np.int32)
    circuit = Circuit(SLOTS, 2, (pack,), (Add(1, 0, 0),), (1,), (places,))
    samples = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    got = simulate.run(circuit, samples)
    # Slot 5 is named a replica of result 0 but holds zero: the mean shows that all replicas count.
    assert np.array_equal(got, [[1.0, 4.0], [6.0, 8.0], [5.0, 12.0]])


def test_noise_is_added_with_the_given_deviation_and_seed() -> None:
    places = np.arange(4096, dtype=np.int32)
    circuit = Circuit(4096, 1, (places,), (Add(1, 0, 0), Add(2, 1, 1)), (2,), (places,))
    zeros = np.zeros((1, 4096))
    noisy = simulate.run(circuit, zeros, noise=(0.5, 0.0))
    assert 0.9 < noisy.std() < 1.1
    assert np.array_equal(noisy, simulate.run(circuit, zeros, noise=(0.5, 0.0)))
    assert not np.array_equal(noisy, simulate.run(circuit, zeros, noise=(0.5, 0.0), seed=1))


def test_broken_circuits_are_refused() -> None:
    places = np.arange(SLOTS, dtype=np.int32)
    twice = Circuit(SLOTS, 1, (places,), (Add(0, 0, 0),), (0,), (places,))
    with pytest.raises(LatticeError, match="made twice"):
        simulate.run(twice, X[None])
    with pytest.raises(LatticeError, match="takes 1 inputs"):
        simulate.evaluate(twice, [X, Y])
    missing = Circuit(SLOTS, 1, (places,), (), (0,), (np.where(places == 2, JUNK, places).astype(np.int32),))
    with pytest.raises(LatticeError, match="lies in no slot"):
        simulate.run(missing, X[None])
    with pytest.raises(LatticeError, match="no step Step"):
        simulate.run(Circuit(SLOTS, 1, (places,), (Step(),), (0,), (places,)), X[None])
