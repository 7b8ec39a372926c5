"""A linear graph is found as one matrix and bias, whatever steps it is made of; anything else is refused."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.graph import Graph, Node
from lattice.fhe.compiler.operations import Dense, Square, Sum
from lattice.fhe.compiler.packing.affine import affine, is_affine
from tests.unit.fhe.compiler.packing.models import linear


def test_a_chain_with_a_residual_is_one_map() -> None:
    rng = np.random.default_rng(0)
    first, second = (Dense(rng.normal(size=(5, 5)), rng.normal(size=5)) for _ in range(2))
    nodes = (Node("a", first, ("x",)), Node("b", second, ("a",)), Node("c", Sum(), ("a", "b")))
    graph = Graph("x", (5,), nodes, "c")
    found, samples = affine(graph), rng.normal(size=(4, 5))
    assert np.allclose(samples @ found.weights.T + found.bias, graph.run(samples))
    assert (found.features, found.outputs) == (5, 5)


def test_the_map_of_unit_features_gives_the_same_results() -> None:
    found = affine(linear(np.array([[2.0, -3.0]]), np.array([0.5])))
    middle, exponents = np.array([10.0, -1.0]), np.array([-3.0, 2.0])
    unit, x = found.of_unit_features(middle, exponents), np.array([11.0, -1.2])
    assert np.allclose(unit.weights @ ((x - middle) * 2.0**exponents) + unit.bias, found.weights @ x + found.bias)


def test_other_steps_and_broken_weights_are_refused() -> None:
    graph = Graph("x", (2,), (Node("y", Square(), ("x",)),), "y")
    assert not is_affine(graph)
    for broken in (graph, linear(np.array([[np.nan]]), np.zeros(1))):
        with pytest.raises(LatticeError) as caught:
            affine(broken)
        assert caught.value.code == "model_unsupported"
