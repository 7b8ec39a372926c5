"""Real encryption from samples to labels, on whatever backend is there."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.client_part import ArgMax
from lattice.fhe.run import OutOfRangeWarning, Session, decrypt
from tests.support.circuits import built, compiled, network, random_circuit, results_in_clear


@pytest.mark.parametrize("fold_first", [True, False])
def test_a_network_gives_the_numbers_and_labels_of_the_clear(fold_first: bool) -> None:
    rng = np.random.default_rng(7)
    samples = rng.uniform(-1, 1, (4, 64))
    circuit = network(rng, 4096, (64, 32, 16, 4))
    model = compiled(built(circuit, samples, fold_first=fold_first), 64, 4, (ArgMax(("a", "b", "c", "d")),))
    answer = Session(model).run(samples)
    wanted = results_in_clear(circuit, samples, 4)
    assert np.abs(answer.values - wanted).max() < 1e-3
    assert list(answer.labels) == ["abcd"[index] for index in wanted.argmax(axis=1)]


@pytest.mark.parametrize("seed", range(6))
def test_random_circuits_compute_what_the_trace_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = random_circuit(rng, 4096, 6, depth=2)
    features, results = 2 * 4096, len(circuit.outputs) * 4096
    samples = rng.uniform(-1, 1, (1, features))
    model = compiled(built(circuit, samples), features, results)
    answer = Session(model).run(samples)
    assert np.abs(answer.values - results_in_clear(circuit, samples, results)).max() < 2e-3
