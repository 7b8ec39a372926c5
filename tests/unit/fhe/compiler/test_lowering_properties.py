"""Whatever circuit packing hands over: the program that comes out is valid, secure, and computes the same."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice.fhe.ckks.parameters import Parameters
from lattice.fhe.ckks.security import max_log_qp
from lattice.fhe.compiler import simulate
from lattice.fhe.compiler.levels import noise
from lattice.fhe.compiler.levels.trace import trace
from lattice.fhe.hal.program import decode
from tests.support.circuits import built, inputs_of, random_circuit

SLOTS = 4096
circuits = st.builds(
    lambda seed, length: (np.random.default_rng(seed), length), st.integers(0, 1 << 32), st.integers(1, 9)
)


@settings(max_examples=25, deadline=None)
@given(circuits, st.booleans())
def test_a_program_survives_its_encoding_and_computes_the_circuit(
    drawn: tuple[np.random.Generator, int], fold_first: bool
) -> None:
    rng, length = drawn
    circuit = random_circuit(rng, SLOTS, length, depth=2)
    samples = rng.uniform(-1, 1, (1, 2 * SLOTS))
    made = built(circuit, samples, scale_bits=24, fold_first=fold_first)
    assert isinstance(made.params, Parameters)
    assert made.params.log_qp <= max_log_qp(made.params.log_n)
    assert decode(made.program.encode()).id == made.program.id
    found = noise.simulate(made.program, made.lowered.weights, inputs_of(circuit, samples)).outputs
    wanted = trace(circuit, inputs_of(circuit, samples))
    for output, values in zip(circuit.outputs, found, strict=True):
        assert np.abs(values - wanted[output]).max() < 2e-2 * max(1.0, np.abs(wanted[output]).max())


@settings(max_examples=25, deadline=None)
@given(circuits)
def test_the_trace_is_the_simulator_of_packing(drawn: tuple[np.random.Generator, int]) -> None:
    """Two implementations of what a circuit means must agree on every value."""
    rng, length = drawn
    circuit = random_circuit(rng, SLOTS, length)
    inputs = inputs_of(circuit, rng.uniform(-1, 1, (1, 2 * SLOTS)))
    other = simulate.evaluate(circuit, [values[0] for values in inputs])
    for number, values in enumerate(trace(circuit, inputs)):
        assert np.allclose(values[0], other[number], rtol=1e-9, atol=1e-9)
