"""Batch packing: the circuit computes the graph for every sample, and slots without a result are zero."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.client_part import ClientPart
from lattice.fhe.compiler.compiled import Compiled
from lattice.fhe.compiler.graph import Graph, Node, Real
from lattice.fhe.compiler.levels.build import build
from lattice.fhe.compiler.levels.options import Options
from lattice.fhe.compiler.levels.trace import magnitudes, trace
from lattice.fhe.compiler.operations import Activation, Dense, Difference, Product, Series, Square, Sum
from lattice.fhe.compiler.packing import batch as batch_packing
from lattice.fhe.compiler.packing.batch import mixtures, pack_batch
from lattice.fhe.hal import instructions as ops
from lattice.fhe.run import Session
from tests.unit.fhe.compiler.packing.models import network


def in_slots(circuit: steps.Circuit, samples: Real) -> list[Real]:
    flat = np.zeros((circuit.batch, samples.shape[1]))
    flat[: len(samples)] = samples
    return [np.where(entries >= 0, flat.ravel()[np.maximum(entries, 0)], 0.0)[None] for entries in circuit.inputs]


def check(graph: Graph, slots: int, batch: int, period: int) -> steps.Circuit:
    circuit = pack_batch(graph, slots, batch)
    assert circuit.batch == slots // period >= batch
    samples = np.random.default_rng(3).uniform(-1, 1, (circuit.batch, *graph.input_shape))
    wanted = graph.run(samples).reshape(circuit.batch, -1)
    values = trace(circuit, in_slots(circuit, samples.reshape(circuit.batch, -1)))
    found = np.full(wanted.size, np.nan)
    for output, places in zip(circuit.outputs, circuit.places, strict=True):
        held = places >= 0
        found[places[held]] = values[output][0][held]
        assert not values[output][0][~held].any(), "mixtures of samples left the circuit"
    assert np.allclose(found.reshape(wanted.shape), wanted)
    return circuit


@pytest.mark.parametrize(("batch", "period"), [(64, 1), (33, 1), (32, 2), (16, 4), (8, 8), (4, 16), (1, 16)])
def test_a_network_is_computed_for_every_sample(batch: int, period: int) -> None:
    check(network((21, 8, 5, 3)), 64, batch, period)


def test_grouped_features_need_one_fold_of_the_first_layer_only() -> None:
    circuit = check(network((20, 8, 5, 3)), 64, 16, 4)
    combines = [step for step in circuit.steps if isinstance(step, steps.Combine)]
    assert [step.weights.shape for step in combines] == [(8, 5, 4), (5, 8, 1), (3, 5, 4)]
    assert [step.fold for step in combines] == [((1, 2, 3),), (), ()]
    assert not any(isinstance(step, steps.Rotate | steps.Matrix) for step in circuit.steps)


def test_pairs_series_and_a_square_at_the_end() -> None:
    rng = np.random.default_rng(1)
    dense = Dense(rng.normal(size=(6, 6)) / 3, rng.normal(size=6))
    series = Node("f", Series((0.1, 0.5, 0.2, 0.05), (-6.0, 6.0)), ("d",))
    pairs = (Node("s", Sum(), ("d", "f")), Node("m", Difference(), ("s", "d")), Node("p", Product(), ("m", "s")))
    check(Graph("x", (6,), (Node("d", dense, ("x",)), series, *pairs), "p"), 32, 8, 1)
    check(Graph("x", (6,), (Node("d", dense, ("x",)), Node("q", Square(), ("d",))), "q"), 32, 8, 4)


def with_series(weights: Real) -> Graph:
    """A series on [−1, 1] between two layers."""
    nodes = (
        Node("d", Dense(weights, np.zeros(2)), ("x",)),
        Node("f", Series((0.0, 0.0, 0.0, 1.0)), ("d",)),
        Node("e", Dense(np.ones((1, 2)), np.zeros(1)), ("f",)),
    )
    return Graph("x", (weights.shape[1],), nodes, "e")


def test_a_series_is_not_fed_with_mixtures_of_samples_that_nobody_looked_at() -> None:
    check(with_series(np.ones((2, 8)) / 8), 64, 4, 1)


def test_features_are_grouped_before_a_series_that_bears_mixtures() -> None:
    samples = np.random.default_rng(5).uniform(-1, 1, (50, 8))
    graph = with_series(np.ones((2, 8)) / 8)
    circuit = pack_batch(graph, 64, 4, samples)
    assert circuit.batch == 8, "16 slots are left for a sample, of which 8 features take 8"
    values = trace(circuit, in_slots(circuit, samples[: circuit.batch]))
    found = values[circuit.outputs[0]][0][circuit.places[0] >= 0]
    assert np.allclose(found, graph.run(samples[: circuit.batch]).ravel())


def test_a_series_that_mixtures_would_leave_keeps_features_apart() -> None:
    """Each sample's features cancel, two halves of different samples do not."""
    sign = np.random.default_rng(6).choice([-1.0, 1.0], (50, 1))
    samples = sign * np.ones((50, 8))
    graph = with_series(np.tile([1.0, -1.0], (2, 4)))
    assert np.abs(graph.trace(samples)["d"]).max() == 0
    circuit = pack_batch(graph, 64, 4, samples)
    assert circuit.batch == 64


def test_mixtures_are_what_slots_without_a_result_compute() -> None:
    graph = network((8, 4, 2))
    samples = np.random.default_rng(7).uniform(-1, 1, (4, 8))
    circuit = pack_batch(graph, 16, 4)
    first = trace(circuit, in_slots(circuit, samples))[circuit.steps[0].outs[0]].reshape(4, 4)  # type: ignore[attr-defined]
    for c, mixed in zip((1, 2, 3), list(mixtures(samples, 4))[::3], strict=True):
        wanted = graph.trace(mixed)[graph.nodes[0].name].reshape(len(mixed), -1)[:3, 0]
        assert np.allclose(first[:3, c], wanted)


def test_a_bias_that_is_one_number_is_no_plaintext() -> None:
    rng = np.random.default_rng(8)
    graph = network((32, 8, 4))
    circuit = pack_batch(graph, 4096, 1000)
    made = build(circuit, magnitudes(circuit, in_slots(circuit, rng.uniform(-1, 1, (9, 32)))), Options(), scale_bits=26)
    constants = [step for step in made.program.instructions if isinstance(step, ops.AddConstant)]
    plain = [step for step in made.program.instructions if isinstance(step, ops.AddPlain)]
    assert (len(constants), len(plain)) == (8, 4), "the last layer's is zero outside of its results"


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network((8, 4, 2))
    for batch in (0, 65):
        with pytest.raises(LatticeError, match="fit"):
            pack_batch(graph, 64, batch)
    with pytest.raises(LatticeError, match="batch packing"):
        pack_batch(Graph("x", (2,), (Node("y", Activation("relu"), ("x",)),), "y"), 64, 4)
    monkeypatch.setattr(batch_packing, "MAX_WEIGHTS", 31)
    with pytest.raises(LatticeError, match="weights"):
        pack_batch(graph, 64, 64)


def test_encrypted_batches_are_right() -> None:
    graph = network((32, 8, 4))
    circuit = pack_batch(graph, 4096, 1000)
    rng = np.random.default_rng(2)
    samples = rng.uniform(-1, 1, (100, 32))
    made = build(circuit, magnitudes(circuit, in_slots(circuit, samples)), Options(), scale_bits=26)
    part = ClientPart((32,), circuit.batch, (), made.inputs, made.outputs, (), 4, -np.ones(32), np.ones(32))
    session = Session(Compiled(made.program, made.lowered.weights, part))
    assert np.abs(session.run(samples).values - graph.run(samples)).max() < 2e-3
