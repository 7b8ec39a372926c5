"""Packed models compute what the graph computes, in the slots that they say, with as few rotations as they should."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import simulate
from lattice.fhe.compiler.circuit import JUNK, ZERO, Circuit, Matrix, Real
from lattice.fhe.compiler.graph import Graph, Node
from lattice.fhe.compiler.operations import (
    Affine,
    AveragePool,
    Dense,
    Difference,
    Permute,
    Product,
    Reshape,
    Series,
    Sparse,
    Square,
    Sum,
)
from lattice.fhe.compiler.operations import Matrix as MatrixOperation
from lattice.fhe.compiler.packing import Counts, Goal, Packer, PackingOptions, layer_counts, pack, total
from tests.unit.fhe.compiler.nets import Nets, sequence

CUBIC = Series((0.1, 0.5, 0.3, 0.1), (-40.0, 40.0))


def check(given: Graph | Packer, slots: int, options: PackingOptions | None = None) -> Circuit:
    """Equal to the graph; no slot declared zero holds anything, whatever fills the input's unused slots."""
    packer = given if isinstance(given, Packer) else Packer(given)
    graph, circuit = packer.graph, packer.pack(slots, options)
    samples = np.random.default_rng(7).normal(size=(2, *graph.input_shape))
    expected = graph.run(samples).reshape(2, -1)
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(simulate.run(circuit, samples) - expected).max() < 1e-9 * scale
    garbage = [
        np.where(layout == ZERO, 1e3, slots)
        for layout, slots in zip(circuit.inputs, simulate.pack_inputs(circuit, samples[:1]), strict=True)
    ]
    values = simulate.evaluate(circuit, garbage)
    for out, places in zip(circuit.outputs, circuit.places, strict=True):
        assert not values[out][places == ZERO].any(), "a slot that is declared zero holds something"
        read = places >= 0
        assert np.abs(values[out][read] - expected[0][places[read]]).max(initial=0.0) < 1e-7 * scale
    return circuit


def within(found: Counts, **limits: int) -> None:
    """None of the counts is larger than its limit."""
    assert all(getattr(found, name) <= limit for name, limit in limits.items()), found


def test_the_mlp_needs_few_rotations_and_keys() -> None:
    circuit = check(Nets().mlp(), 4096)
    found = total(circuit)
    within(found, rotations=36, diagonals=46, new_steps=20)
    by_layer = layer_counts(circuit)
    assert list(by_layer) == ["n0", "n2", "n4"]
    assert sum(layer.rotations for layer in by_layer.values()) == found.rotations
    assert not any((places == JUNK).any() for places in circuit.places)


@pytest.mark.parametrize("pad", [1, 2])
def test_lola_needs_few_rotations_and_keys(pad: int) -> None:
    found = total(check(Nets().lola(pad), 4096))
    within(found, rotations=35, diagonals=57, new_steps=20)


@pytest.mark.slow
def test_lenet_needs_few_rotations_diagonals_and_keys() -> None:
    packer = Packer(Nets().lenet())
    circuit = check(packer, 8192)
    found = total(circuit)
    within(found, rotations=125, diagonals=880, new_steps=40)
    assert len(circuit.inputs) == 1
    few = total(packer.pack(8192, PackingOptions(Goal.KEYS)))
    within(few, diagonals=880, new_steps=found.new_steps - 1)


def test_a_linear_model_is_one_diagonal_and_a_fold() -> None:
    circuit = check(sequence((30,), Nets().dense(1, 30)), 1024, PackingOptions(Goal.KEYS))
    assert total(circuit) == Counts(rotations=5, diagonals=1, new_steps=5)
    assert (circuit.places[0] == 0).all()


def test_a_circuit_is_the_same_when_it_is_made_again() -> None:
    packer = Packer(Nets().lola())
    packer.pack(4096, PackingOptions(Goal.KEYS))
    first, again = packer.pack(4096), pack(Nets().lola(), 4096)
    for one, two in zip(first.steps, again.steps, strict=True):
        assert type(one) is type(two)
        if isinstance(one, Matrix) and isinstance(two, Matrix):
            assert np.array_equal(one.diagonals, two.diagonals)
            assert one.terms == two.terms


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 70), min_size=2, max_size=4), st.sampled_from([16, 64, 256]), st.integers(0, 9))
def test_dense_nets_of_any_size(sizes: list[int], slots: int, seed: int) -> None:
    nets = Nets(seed)
    layers = [nets.dense(out, inputs) for inputs, out in pairwise(sizes)]
    activated = [step for layer in layers[:-1] for step in (layer, (Square(), CUBIC)[seed % 2])]
    check(sequence((sizes[0],), *activated, layers[-1]), slots)


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 3),
    st.integers(5, 11),
    st.integers(5, 11),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 2),
    st.sampled_from([256, 1024]),
)
def test_convolutions_of_any_shape(
    channels: int, height: int, width: int, maps: int, kernel: int, stride: int, pad: int, slots: int
) -> None:
    nets = Nets(maps)
    first = nets.conv(2 * maps, channels, kernel, stride, pad)
    second = nets.conv(maps, 2 * maps, min(2, kernel), 1, 1, groups=maps)
    shape = second.shape(first.shape((channels, height, width)))
    size = int(np.prod(shape))
    check(sequence((channels, height, width), first, Square(), second, CUBIC, nets.dense(3, size)), slots)


def test_a_chain_of_convolutions_with_strides_shares_a_grid() -> None:
    nets = Nets()
    net = sequence(
        (1, 16, 16),
        nets.conv(4, 1, 3, 2, 1),
        Square(),
        nets.conv(8, 4, 3, 2, 1),
        Square(),
        nets.conv(8, 8, 3, 1, 1),
        Square(),
        nets.dense(10, 128),
    )
    found = total(check(net, 1024))
    assert found.diagonals <= 300, found


def test_pools_affine_layers_and_moved_axes() -> None:
    nets = Nets()
    scale = nets.random.normal(size=(2, 1, 1))
    net = sequence(
        (2, 8, 8),
        Affine(scale, scale + 1),
        Square(),
        AveragePool((2, 2), (2, 2)),
        Permute((1, 2, 0)),
        Reshape((32,)),
        nets.dense(5, 32),
    )
    check(net, 256)
    check(sequence((2, 4, 4), Permute((2, 0, 1)), Square(), Reshape((32,)), nets.dense(4, 32)), 128)
    check(sequence((4, 8, 8), AveragePool((8, 8), (1, 1)), nets.dense(3, 4)), 512)


def test_rows_of_zeros_still_give_their_bias() -> None:
    weight = np.zeros((4, 6))
    weight[1, 2] = 3.0
    check(sequence((6,), Dense(weight, np.array([1.0, 2.0, 3.0, 4.0])), Square(), Nets().dense(2, 4)), 32)
    nothing = Sparse.of(np.zeros((2, 3)), np.array([5.0, 6.0]))
    check(sequence((3,), MatrixOperation(nothing, (2,))), 16)


def residual(*, wide: bool) -> Graph:
    nets = Nets(3)
    nodes = [
        Node("a", nets.conv(8, 4, 3, 1 + wide, 1), ("x",)),
        Node("s", Square(), ("a",)),
        Node("b", nets.conv(8, 8, 3, 1, 1), ("s",)),
        Node("p", nets.conv(8, 4, 1, 2, 0), ("x",)) if wide else Node("p", nets.conv(8, 8, 1), ("s",)),
        Node("d", Sum(), ("b", "p")),
        Node("e", Square(), ("d",)),
        Node("f", nets.dense(10, 8 * (64 if not wide else 16)), ("e",)),
    ]
    return Graph("x", (4, 8, 8), tuple(nodes), "f")


def test_branches_come_to_one_layout() -> None:
    plain = check(residual(wide=False), 2048)
    assert sum(isinstance(step, Matrix) for step in plain.steps) == 4, "no repacking is needed here"
    check(residual(wide=True), 2048)


def test_constants_in_empty_slots_are_no_junk() -> None:
    """p(0) fills the slots of no channel; blocks of a residual net must not pay a level each to clean it away."""
    nets = Nets(4)
    bent = Series((0.3, 0.5, 0.2, 0.05), (-30.0, 30.0))
    nodes = [Node("c", nets.conv(3, 1, 3, 1, 1), ("x",)), Node("r0", bent, ("c",))]
    for at in (1, 2):
        before = f"r{at - 1}"
        nodes += [
            Node(f"a{at}", nets.conv(3, 3, 3, 1, 1), (before,)),
            Node(f"t{at}", bent, (f"a{at}",)),
            Node(f"b{at}", nets.conv(3, 3, 3, 1, 1), (f"t{at}",)),
            Node(f"s{at}", Sum(), (f"b{at}", before)),
            Node(f"r{at}", bent, (f"s{at}",)),
        ]
    nodes.append(Node("f", nets.dense(4, 3 * 49), ("r2",)))
    circuit = check(Graph("x", (1, 7, 7), tuple(nodes), "f"), 256)
    assert sum(isinstance(step, Matrix) for step in circuit.steps) == 6


def test_layers_of_stride_one_before_a_strided_one() -> None:
    nets = Nets(5)
    net = sequence(
        (1, 8, 8),
        nets.conv(4, 1, 3, 1, 1),
        Square(),
        nets.conv(4, 4, 3, 1, 1),
        Square(),
        nets.conv(8, 4, 3, 2, 1),
        Square(),
        nets.conv(8, 8, 3, 1, 1),
        Square(),
        nets.dense(3, 128),
    )
    found = total(check(net, 256))
    assert found.diagonals <= 300, found


def test_every_operation_on_two_tensors() -> None:
    nets = Nets()
    nodes = (
        Node("a", nets.dense(16, 16), ("x",)),
        Node("b", Square(), ("a",)),
        Node("c", nets.dense(16, 16), ("b",)),
        Node("d", Sum(), ("c", "x")),
        Node("p", Product(), ("d", "c")),
        Node("q", Difference(), ("p", "x")),
        Node("r", Sum(), ("q", "q")),
        Node("f", nets.dense(3, 16), ("r",)),
    )
    check(Graph("x", (16,), nodes, "f"), 128)


def test_tensors_larger_than_the_slots_take_several_ciphertexts() -> None:
    nets = Nets()
    wide = sequence((100,), nets.dense(300, 100), Square(), nets.dense(10, 300))
    circuit = check(wide, 64)
    assert len(circuit.inputs) == 2
    image = sequence(
        (3, 16, 16), nets.conv(8, 3, 3, 1, 1), Square(), nets.conv(8, 8, 3, 2, 1), Square(), nets.dense(10, 512)
    )
    assert len(check(image, 512).inputs) <= 14
    many = check(sequence((20,), nets.dense(100, 20)), 64)
    assert len(many.outputs) == 2


def test_no_junk_reaches_a_polynomial() -> None:
    net = sequence((40,), Nets().dense(33, 40), CUBIC, Nets(1).dense(40, 33), CUBIC, Nets(2).dense(7, 40))
    circuit = check(net, 64)
    samples: Real = np.random.default_rng(0).normal(size=(1, 40))
    values = simulate.evaluate(circuit, simulate.pack_inputs(circuit, samples))
    # Anything that is no entry of a tensor would be far outside the interval after a few layers.
    assert max(float(np.abs(value).max()) for value in values.values()) < 1e4


def test_impossible_requests_are_refused() -> None:
    with pytest.raises(LatticeError, match="power of two"):
        pack(Nets().mlp(), 1000)
