"""The passes change nothing but the number of layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import operations as ops
from lattice.fhe.compiler.client_part import ArgMax, Sigmoid
from lattice.fhe.compiler.graph import Graph, Node
from lattice.fhe.compiler.importers import Imported, load
from lattice.fhe.compiler.passes import simplify
from tests.unit.fhe.compiler.onnx_models import model

RANDOM = np.random.default_rng(6)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape)


def kinds(graph: Graph) -> list[str]:
    return [type(node.operation).__name__ for node in graph.nodes]


def chain(shape: tuple[int, ...], *operations: Any) -> Graph:
    """Operations one after the other."""
    names = ["x", *(f"{type(each).__name__.lower()}{place}" for place, each in enumerate(operations))]
    nodes = [Node(name, each, (before,)) for before, name, each in zip(names, names[1:], operations, strict=False)]
    return Graph("x", shape, tuple(nodes), names[-1])


def simple(graph: Graph, atol: float = 1e-9) -> Graph:
    """The simplified graph, after a look that it computes the same."""
    after = simplify(Imported(graph), client_sigmoid=False).graph
    x = normal(3, *graph.input_shape)
    expected = graph.run(x)
    np.testing.assert_allclose(after.run(x), expected, atol=atol * max(1.0, float(np.abs(expected).max())))
    return after


def conv(out: int, into: int, kernel: int, groups: int = 1, **more: Any) -> ops.Convolution:
    return ops.Convolution(normal(out, into // groups, kernel, kernel), normal(out), groups=groups, **more)


def norm(channels: int, shift: bool = True) -> ops.Affine:
    return ops.Affine(normal(channels, 1, 1), normal(channels, 1, 1) * shift)


def test_batch_normalisation_folds_into_the_convolution_before() -> None:
    after = simple(chain((2, 6, 6), conv(4, 2, 3, 2, pads=(1, 1, 1, 1)), norm(4), ops.Activation("relu")))
    assert kinds(after) == ["Convolution", "Activation"]
    assert after.nodes[0].name == "convolution0"


def test_batch_normalisation_folds_into_the_convolution_behind() -> None:
    assert kinds(simple(chain((4, 6, 6), norm(4), conv(4, 4, 3, 2)))) == ["Convolution"]
    assert kinds(simple(chain((4, 6, 6), norm(4, False), conv(4, 4, 3, 2, pads=(1, 1, 1, 1))))) == ["Convolution"]
    # The padding is not shifted: the bias differs at the border, which only a matrix can say.
    assert kinds(simple(chain((4, 6, 6), norm(4), conv(4, 4, 3, 2, pads=(1, 1, 1, 1))))) == ["Matrix"]


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 1, 2)])
def test_pooling_and_a_convolution_become_one(size: int, pads: tuple[int, int, int, int]) -> None:
    graph = chain((2, size, size), ops.AveragePool((2, 2), (2, 2)), conv(3, 2, 3, pads=pads, stride=(1, 2)))
    assert kinds(simple(graph)) in (["Convolution"], ["Matrix"])
    if size == 8:
        assert kinds(simple(graph)) == ["Convolution"]
    other = chain((2, size, size), conv(3, 2, 3, pads=pads), ops.AveragePool((2, 2), (2, 2)))
    assert kinds(simple(other)) == ["Convolution"]


def test_layout_is_taken_in_by_the_layer_behind() -> None:
    graph = chain(
        (2, 4, 4),
        conv(3, 2, 3),
        ops.Square(),
        ops.Permute((1, 2, 0)),
        ops.Reshape((12,)),
        ops.Activation("tanh"),
        ops.Dense(normal(5, 12), normal(5)),
        ops.Affine(normal(5), normal(5)),
        ops.Reshape((5, 1)),
    )
    after = simple(graph)
    assert kinds(after) == ["Convolution", "Square", "Activation", "Matrix"]


def test_scalers_projections_and_models_become_one_layer() -> None:
    graph = chain(
        (30,),
        ops.Affine(normal(30), normal(30)),
        ops.Dense(normal(5, 30), normal(5)),
        ops.Dense(normal(1, 5), normal(1)),
    )
    assert kinds(simple(graph)) == ["Dense"]


def test_a_bottleneck_stays_narrow() -> None:
    graph = chain((100,), ops.Dense(normal(4, 100), normal(4)), ops.Dense(normal(100, 4), normal(100)))
    assert kinds(simple(graph)) == ["Dense", "Dense"]


def test_a_series_takes_in_numbers_behind_it() -> None:
    """2·f(x) − 1 costs no layer; a factor for each entry does, and a shift that only some read stays outside."""
    series = ops.Series((0.3, 0.5, -0.1, 0.25), (-3.0, 3.0))
    after = simple(chain((4,), series, ops.Affine(np.array(2.0), np.array([-1.0]))))
    assert kinds(after) == ["Series"]
    assert kinds(simple(chain((4,), series, ops.Affine(np.arange(1.0, 5.0), np.zeros(4))))) != ["Series"]


def test_a_value_that_two_read_is_kept() -> None:
    nodes = (
        Node("a", conv(4, 2, 3, pads=(1, 1, 1, 1)), ("x",)),
        Node("n", norm(4), ("a",)),
        Node("f", ops.Square(), ("n",)),
        Node("b", conv(4, 4, 3, pads=(1, 1, 1, 1)), ("f",)),
        Node("s", ops.Sum(), ("b", "n")),
    )
    after = simple(Graph("x", (2, 5, 5), nodes, "s"))
    assert kinds(after) == ["Convolution", "Square", "Convolution", "Sum"]


def test_parallel_layers_are_added_beforehand() -> None:
    nodes = (
        Node("a", ops.Dense(normal(6, 6), normal(6)), ("x",)),
        Node("b", ops.Dense(normal(6, 6), normal(6)), ("x",)),
        Node("d", ops.Difference(), ("a", "b")),
        Node("s", ops.Sum(), ("d", "x")),
    )
    assert kinds(simple(Graph("x", (6,), nodes, "s"))) == ["Dense"]


def test_a_factor_before_a_square_goes_on() -> None:
    graph = chain(
        (6,), ops.Square(), ops.Affine(np.array(0.5), np.zeros(())), ops.Square(), ops.Dense(normal(3, 6), normal(3))
    )
    assert kinds(simple(graph)) == ["Square", "Square", "Dense"]


def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), [output], **attributes)


WRITTEN_OUT = {
    "gelu": [
        node("Div", "h root2", "a"),
        node("Erf", "a", "b"),
        node("Add", "b one", "c"),
        node("Mul", "h c", "d"),
        node("Mul", "d half", "y"),
    ],
    "gelu_tanh": [
        node("Mul", "h h", "a"),
        node("Mul", "a h", "b"),
        node("Mul", "b k", "c"),
        node("Add", "h c", "d"),
        node("Mul", "d q", "e"),
        node("Tanh", "e", "f"),
        node("Add", "f one", "g"),
        node("Mul", "h g", "i"),
        node("Mul", "i half", "y"),
    ],
    "silu": [node("Sigmoid", "h", "a"), node("Mul", "h a", "y")],
    "mish": [node("Softplus", "h", "a"), node("Tanh", "a", "b"), node("Mul", "b h", "y")],
    "hard_swish": [node("HardSigmoid", "h", "a", alpha=1 / 6, beta=0.5), node("Mul", "h a", "y")],
    "sigmoid": [node("Neg", "h", "a"), node("Exp", "a", "b"), node("Add", "b one", "c"), node("Div", "one c", "y")],
}


@pytest.mark.parametrize("name", sorted(WRITTEN_OUT))
def test_functions_that_exporters_write_out(name: str) -> None:
    constants = {"root2": 2**0.5, "one": 1.0, "half": 0.5, "k": 0.044715, "q": (2 / np.pi) ** 0.5}
    weights = {key: np.float32(value) for key, value in constants.items()} | {"w": normal(6, 4).astype(np.float32)}
    proto = model([node("MatMul", "x w", "h"), *WRITTEN_OUT[name]], ("N", 6), weights)
    imported = load(proto)
    after = simple(imported.graph, atol=1e-6)
    assert kinds(after)[:2] == ["Dense", "Activation"]
    assert all(kind == "Affine" for kind in kinds(after)[2:])
    assert after.nodes[1].operation.function == name  # type: ignore[attr-defined]


def test_a_polynomial_written_out_is_one_operation() -> None:
    """0.25 + 0.5·x + 0.125·x², as models trained with a polynomial in place of ReLU export it."""
    nodes = (
        Node("h", ops.Dense(normal(4, 6), normal(4)), ("x",)),
        Node("q", ops.Square(), ("h",)),
        Node("a", ops.Affine(np.array(0.125), np.array(0.25)), ("q",)),
        Node("b", ops.Affine(np.array(0.5), np.array(0.0)), ("h",)),
        Node("y", ops.Sum(), ("a", "b")),
    )
    after = simple(Graph("x", (6,), nodes, "y"))
    assert kinds(after) == ["Dense", "Composite"]
    assert after.nodes[1].operation.degree == 2  # type: ignore[attr-defined]


def test_the_last_sigmoid_is_the_clients() -> None:
    graph = chain((6,), ops.Dense(normal(1, 6), normal(1)), ops.Activation("sigmoid"), ops.Reshape((1, 1)))
    sunk = simplify(Imported(graph, after=(ArgMax(),)))
    assert sunk.after == (Sigmoid(), ArgMax())
    assert "Activation" not in kinds(sunk.graph)
    assert "Activation" in kinds(simplify(Imported(graph), client_sigmoid=False).graph)


def test_weights_that_are_not_finite_are_refused() -> None:
    for bad in (np.nan, np.inf, 1e30):
        weight = normal(2, 3)
        weight[1, 1] = bad
        with pytest.raises(LatticeError, match="dense0") as caught:
            simplify(Imported(chain((3,), ops.Dense(weight, normal(2)))))
        assert caught.value.code == "model_invalid"


@st.composite
def networks(draw: st.DrawFn) -> Graph:
    """Any mix of layers, functions, layout and branches on [channels, 4–6, 4–6]."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    channels, side = draw(st.integers(1, 3)), draw(st.integers(4, 6))
    shape: tuple[int, ...] = (channels, side, side)
    graph = Graph("x", shape, (), "x")
    values = {"x": shape}
    nodes: list[Node] = []
    last = "x"
    for place in range(draw(st.integers(1, 9))):
        now = values[last]
        choice = draw(st.sampled_from(["linear", "layout", "function", "pair", "pair", "affine"]))
        same = [name for name, other in values.items() if other == now]
        inputs: tuple[str, ...] = (last,)
        operation: Any
        if choice == "linear" and len(now) == 3 and min(now[1:]) >= 3:
            groups = now[0] if draw(st.booleans()) else 1
            pads = (1, 0, 1, 1) if draw(st.booleans()) else (0, 0, 0, 0)
            operation = ops.Convolution(
                random.normal(size=(2 * groups, now[0] // groups, 2, 3)),
                random.normal(size=2 * groups),
                (1, 1),
                pads,
                (1, 1),
                groups,
            )
            if draw(st.booleans()):
                operation = ops.AveragePool((2, 2), (2, 1), include_pad=draw(st.booleans()))
        elif choice == "linear":
            entries = int(np.prod(now))
            operation = ops.Dense(random.normal(size=(entries, entries)) / entries, random.normal(size=entries))
        elif choice == "layout":
            order = tuple(random.permutation(len(now)).tolist())
            operation = ops.Permute(order) if draw(st.booleans()) else ops.Reshape((now[0], int(np.prod(now[1:]))))
        elif choice == "function":
            operation = draw(
                st.sampled_from([ops.Square(), ops.Activation("tanh"), ops.Power(2), ops.Series((0.5, 0.0, 0.5))])
            )
        elif choice == "affine":
            scalar = draw(st.booleans())
            part = (1,) * len(now) if scalar else (now[0], *(1,) * (len(now) - 1))
            operation = ops.Affine(random.normal(size=part), random.normal(size=part) * draw(st.booleans()))
        else:
            operation = draw(st.sampled_from([ops.Sum(), ops.Difference(), ops.Product()]))
            inputs = (draw(st.sampled_from(same)), draw(st.sampled_from(same)))
        name = f"v{place}"
        nodes.append(Node(name, operation, inputs))
        values[name] = operation.shape(*(values[each] for each in inputs))
        last = name
    return Graph(graph.input, shape, tuple(nodes), last)


@settings(deadline=None, max_examples=150)
@given(networks())
def test_any_network_computes_the_same(graph: Graph) -> None:
    with np.errstate(all="ignore"):
        if not np.all(np.abs(graph.run(normal(3, *graph.input_shape))) < 1e8):
            return
        after = simple(graph, atol=1e-7)
    assert len(after.nodes) <= len(graph.nodes) + 1
