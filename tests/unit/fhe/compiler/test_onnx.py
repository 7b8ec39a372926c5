"""An imported ONNX model computes what ONNX's own evaluator says, operator by operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.client_part import ArgMax, Largest, Softmax
from lattice.fhe.compiler.client_steps import finish
from lattice.fhe.compiler.importers import load
from tests.unit.fhe.compiler.onnx_models import model, reference

RANDOM = np.random.default_rng(5)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def check(proto: Any, x: np.ndarray, atol: float = 1e-4) -> None:
    imported = load(proto)
    ours = finish(imported.after, imported.graph.run(x)).values
    np.testing.assert_allclose(ours, reference(proto, x).reshape(len(x), -1), atol=atol, rtol=1e-4)


def node(operator: str, inputs: str, outputs: str = "y", **attributes: Any) -> Any:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


W, B = "w", "b"
ONE = {
    "gemm": (node("Gemm", "x w b", transB=1, alpha=0.5, beta=2.0), (5,), {W: normal(3, 5), B: normal(3)}),
    "gemm-no-bias": (node("Gemm", "x w"), (5,), {W: normal(5, 3)}),
    "gemm-bias-row": (node("Gemm", "x w b"), (5,), {W: normal(5, 3), B: normal(1, 1)}),
    "gemm-residual": (node("Gemm", "x w x", beta=0.3), (5,), {W: normal(5, 5)}),
    "matmul": (node("MatMul", "x w"), (5,), {W: normal(5, 3)}),
    "matmul-rows": (node("MatMul", "x w"), (4, 5), {W: normal(5, 3)}),
    "matmul-left": (node("MatMul", "w x"), (4, 5), {W: normal(3, 4)}),
    "matmul-vector": (node("MatMul", "x w"), (4, 5), {W: normal(5)}),
    "conv-1d": (node("Conv", "x w b", pads=[2, 1], strides=[2], group=2), (4, 9), {W: normal(6, 2, 3), B: normal(6)}),
    "conv-transpose": (
        node("ConvTranspose", "x w b", strides=[2, 2], pads=[1, 1, 0, 1], output_padding=[1, 1]),
        (4, 5, 4),
        {W: normal(4, 3, 3, 3), B: normal(3)},
    ),
    "same-lower": (node("Conv", "x w", auto_pad="SAME_LOWER", strides=[2, 3]), (1, 7, 8), {W: normal(2, 1, 4, 4)}),
    "same-upper": (node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 2]), (1, 7, 8), {W: normal(2, 1, 4, 3)}),
    "valid": (node("Conv", "x w", auto_pad="VALID"), (1, 7, 8), {W: normal(2, 1, 4, 3)}),
    "pool-1d": (node("AveragePool", "x", kernel_shape=[3], strides=[2], pads=[1, 1]), (2, 9), {}),
    "global-pool": (node("GlobalAveragePool", "x"), (3, 4, 5), {}),
    "add-row": (node("Add", "x w"), (3, 4), {W: normal(4)}),
    "add-channel": (node("Add", "w x"), (3, 4), {W: normal(1, 3, 1)}),
    "add-self": (node("Add", "x x"), (4,), {}),
    "sub": (node("Sub", "x w"), (4,), {W: normal(4)}),
    "sub-from": (node("Sub", "w x"), (4,), {W: normal(1)}),
    "mul": (node("Mul", "x w"), (4,), {W: normal(4)}),
    "mul-expands": (node("Mul", "x w"), (1, 4), {W: normal(3, 1)}),
    "square": (node("Mul", "x x"), (4,), {}),
    "div": (node("Div", "x w"), (4,), {W: normal(4)}),
    "pow-1": (node("Pow", "x w"), (4,), {W: np.array(1.0, np.float32)}),
    "pow-2": (node("Pow", "x w"), (4,), {W: np.array(2.0, np.float32)}),
    "pow-5": (node("Pow", "x w"), (4,), {W: np.array(5.0, np.float32)}),
    "neg": (node("Neg", "x"), (4,), {}),
    "sum": (node("Sum", "x w x"), (4,), {W: normal(4)}),
    "mean": (node("Mean", "x w x"), (4,), {W: normal(4)}),
    "batch-norm": (
        node("BatchNormalization", "x w b m v", epsilon=0.01),
        (3, 2, 2),
        {W: normal(3), B: normal(3), "m": normal(3), "v": np.abs(normal(3))},
    ),
    "flatten": (node("Flatten", "x"), (3, 2, 2), {}),
    "reshape": (node("Reshape", "x w"), (3, 2, 2), {W: np.array([0, 2, -1])}),
    "reshape-minus": (node("Reshape", "x w"), (3, 2, 2), {W: np.array([-1, 6, 2])}),
    "squeeze": (node("Squeeze", "x w"), (3, 1, 2), {W: np.array([-2])}),
    "unsqueeze": (node("Unsqueeze", "x w"), (3, 2), {W: np.array([1, -1])}),
    "transpose": (node("Transpose", "x", perm=[0, 3, 1, 2]), (3, 4, 2), {}),
    "pad": (node("Pad", "x w v"), (3, 4), {W: np.array([0, 1, 3, 0, 2, 1]), "v": np.array(0.5, np.float32)}),
    "pad-reflect": (node("Pad", "x w", mode="reflect"), (3, 4), {W: np.array([0, 1, 0, 0, 2, 1])}),
    "slice": (
        node("Slice", "x s e a t"),
        (5, 6),
        {"s": np.array([1, -1]), "e": np.array([9, -9]), "a": np.array([1, 2]), "t": np.array([2, -2])},
    ),
    "gather": (node("Gather", "x i", axis=-1), (3, 4), {"i": np.array([[0, -1], [2, 2]])}),
    "expand": (node("Expand", "x w"), (3, 1), {W: np.array([1, 3, 4])}),
    "tile": (node("Tile", "x w"), (2, 3), {W: np.array([1, 2, 3])}),
    "concat": (node("Concat", "x w x", axis=1), (2, 3), {W: normal(1, 1, 3)}),
    "depth-dcr": (node("DepthToSpace", "x", blocksize=2), (8, 2, 3), {}),
    "depth-crd": (node("DepthToSpace", "x", blocksize=2, mode="CRD"), (8, 2, 3), {}),
    "space": (node("SpaceToDepth", "x", blocksize=2), (2, 4, 6), {}),
    "reduce-mean": (node("ReduceMean", "x w"), (3, 4, 2), {W: np.array([2, -1])}),
    "reduce-sum": (node("ReduceSum", "x w", keepdims=0), (3, 4, 2), {W: np.array([2])}),
    "reduce-square": (node("ReduceSumSquare", "x w", keepdims=0), (3, 4), {W: np.array([1])}),
    "clip": (node("Clip", "x b w"), (9,), {B: np.float32(-0.3), W: np.float32(0.6)}),
    "relu6": (node("Clip", "x b w"), (9,), {B: np.float32(0), W: np.float32(6)}),
    "max": (node("Max", "x b"), (9,), {B: np.float32(0)}),
    "min": (node("Min", "b x"), (9,), {B: np.float32(0.2)}),
    "prelu": (node("PRelu", "x w"), (3, 4), {W: normal(3, 1)}),
    "prelu-one": (node("PRelu", "x w"), (3, 4), {W: normal(1)}),
    "softmax": (node("Softmax", "x"), (7,), {}),
    "log-softmax": (node("LogSoftmax", "x", axis=1), (7,), {}),
    "identity": (node("Identity", "x"), (7,), {}),
    "dropout": (node("Dropout", "x"), (7,), {}),
    "cast": (node("Cast", "x", to=TensorProto.DOUBLE), (7,), {}),
}


@pytest.mark.parametrize("name", sorted(ONE))
def test_one_operator(name: str) -> None:
    call, shape, weights = ONE[name]
    check(model([call], ("N", *shape), weights), normal(1 if name in ("concat",) else 3, *shape))


@pytest.mark.parametrize("name", ["Reciprocal", "Sqrt", "Log"])
def test_functions_of_positive_numbers(name: str) -> None:
    check(model([node(name, "x")], ("N", 5)), np.abs(normal(3, 5)) + 0.5)


@pytest.mark.parametrize(("name", "attributes"), [("Swish", {"alpha": 0.7}), ("HardSigmoid", {}), ("Selu", {})])
def test_functions_with_defaults(name: str, attributes: dict[str, float]) -> None:
    proto = model([node(name, "x", **attributes)], ("N", 5), opset=24 if name == "Swish" else 20)
    check(proto, normal(3, 5))


def test_division_of_two_tensors() -> None:
    nodes = [node("Exp", "x", "e"), node("Div", "x e")]
    check(model(nodes, ("N", 5)), normal(3, 5))
    check(model([node("Exp", "x", "e"), node("Div", "w e")], ("N", 5), {"w": normal(5)}), normal(3, 5))


@settings(deadline=None, max_examples=40)
@given(
    groups=st.integers(1, 2),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_convolution(groups: int, **w: tuple[int, ...]) -> None:
    assume(all(5 + w["pads"][a] + w["pads"][a + 2] > (w["kernel"][a] - 1) * w["dilations"][a] for a in (0, 1)))
    kernel = w.pop("kernel")
    call = node("Conv", "x w", group=groups, **w)
    check(model([call], ("N", 2 * groups, 5, 5), {"w": normal(3 * groups, 2, *kernel)}), normal(2, 2 * groups, 5, 5))


def test_old_operator_sets_keep_lists_in_attributes() -> None:
    nodes = [
        node("Squeeze", "x", "a", axes=[2]),
        node("Unsqueeze", "a", "c", axes=[1]),
        node("Pad", "c", "d", pads=[0, 0, 1, 0, 0, 1], mode="constant"),
        node("ReduceMean", "d", "e", axes=[1], keepdims=0),
        node("Clip", "e", "f", min=-0.5, max=0.5),
        node("Slice", "f", "g", starts=[1], ends=[4], axes=[1]),
        node("Softmax", "g", "y"),
    ]
    check(model(nodes, ("N", 4, 1), opset=9), normal(3, 4, 1))


def test_a_residual_network_with_batch_norm() -> None:
    weights = {"w": normal(4, 3, 3, 3), "v": normal(4, 4, 3, 3), "d": normal(10, 4)}
    weights |= {name: np.abs(normal(4)) for name in ("s", "b", "m", "r")}
    nodes = [
        node("Conv", "x w", "c", pads=[1] * 4),
        node("BatchNormalization", "c s b m r", "n"),
        node("Relu", "n", "a"),
        node("Conv", "a v", "e", pads=[1] * 4),
        node("Add", "e a", "f"),
        node("GlobalAveragePool", "f", "g"),
        node("Flatten", "g", "h"),
        node("Gemm", "h d", "z", transB=1),
        node("Softmax", "z", "y", axis=-1),
    ]
    proto = model(nodes, ("batch", 3, 6, 6), weights)
    check(proto, normal(2, 3, 6, 6))
    assert load(proto).after == (Softmax(),)


def test_shapes_are_worked_out() -> None:
    """What exporters write for x.view(x.size(0), -1): Shape, Gather, Unsqueeze, Concat, Reshape."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n axes", "u"),
        node("Concat", "u minus", "t", axis=0),
        node("Reshape", "x t", "y"),
    ]
    weights = {"zero": np.array(0), "axes": np.array([0]), "minus": np.array([-1])}
    check(model(nodes, ("N", 3, 4), weights), normal(2, 3, 4))


def test_folded_weights() -> None:
    constant = helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2)))
    nodes = [constant, node("Mul", "w two", "w2"), node("Transpose", "w2", "w3", perm=[1, 0]), node("MatMul", "x w3")]
    check(model(nodes, ("N", 4), {"w": normal(3, 4)}), normal(2, 4))
    quantised = {"q": RANDOM.integers(-9, 9, (4, 3)).astype(np.int8), "s": np.float32(0.1), "z": np.int8(1)}
    check(model([node("DequantizeLinear", "q s z", "w"), node("MatMul", "x w")], ("N", 4), quantised), normal(2, 4))


def test_transposed_convolution_in_groups() -> None:
    """ONNX's evaluator cannot do groups: two halves side by side are the same."""
    x, weight = normal(2, 4, 5, 4), normal(4, 3, 2, 3)
    whole = load(model([node("ConvTranspose", "x w", group=2)], ("N", 4, 5, 4), {"w": weight})).graph.run(x)
    proto = model([node("ConvTranspose", "x w")], ("N", 2, 5, 4), {"w": weight[:2]})
    np.testing.assert_allclose(whole[:, : whole.shape[1] // 2], reference(proto, x[:, :2]).reshape(2, -1), atol=1e-4)


def test_padding_may_cut() -> None:
    call = node("Pad", "x w")
    x = normal(2, 3, 4)
    imported = load(model([call], ("N", 3, 4), {"w": np.array([0, 1, -1, 0, 0, 1])}))
    expected = np.pad(x[:, :, 1:], ((0, 0), (1, 0), (0, 1))).reshape(2, -1)
    np.testing.assert_allclose(imported.graph.run(x), expected)


def test_a_fixed_batch_is_the_batch() -> None:
    check(model([node("Reshape", "x w")], (2, 4), {"w": np.array([2, 2, 2])}), normal(2, 4))


def test_split() -> None:
    nodes = [node("Split", "x", "a c", axis=1, num_outputs=2), node("Sub", "a c")]
    check(model(nodes, ("N", 6)), normal(2, 6))


def test_decisions_are_the_clients() -> None:
    nodes = [node("Softmax", "x", "p"), node("ArgMax", "p", "y", axis=1, keepdims=0)]
    imported = load(model(nodes, ("N", 6)))
    assert imported.after == (Softmax(), ArgMax())
    x = normal(9, 6)
    np.testing.assert_array_equal(finish(imported.after, imported.graph.run(x)).labels, x.argmax(axis=1))
    top = load(model([node("TopK", "x k", "y i")], ("N", 6), {"k": np.array([2])}))
    assert top.after == (Largest(2),)
    both = load(model(nodes, ("N", 6), outputs=("p", "y")))
    assert both.after == (Softmax(), ArgMax())


def test_everything_unsupported_is_reported_at_once() -> None:
    nodes = [
        node("MaxPool", "x", "a", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["a", "w"], ["c"], name="fine"),
        helper.make_node("MaxPool", ["c"], ["d"], name="second", kernel_shape=[2, 2]),
        node("LayerNormalization", "d s", "e"),
        node("Softmax", "x", "p", axis=2),
        node("Mystery", "e p", "y"),
    ]
    with pytest.raises(LatticeError) as caught:
        load(model(nodes, ("N", 1, 8, 8), {"w": normal(2, 1, 3, 3), "s": normal(2)}))
    assert caught.value.code == "model_unsupported"
    found = {item["operator"]: item for item in caught.value.details["unsupported"]}
    assert set(found) == {"MaxPool", "LayerNormalization", "Softmax", "Mystery"}
    assert found["MaxPool"]["nodes"] == ["MaxPool_0", "second"]
    assert found["MaxPool"]["count"] == 2
    assert "AveragePool" in found["MaxPool"]["instead"]
    for operator in found:
        assert operator in caught.value.message


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([node("Softmax", "x", "p"), node("Gemm", "p w")], "Softmax, which is done by the client"),
        ([node("Transpose", "x", perm=[1, 0])], "batch"),
        ([node("MatMul", "x x")], "both of its sides"),
        ([node("Gemm", "x v")], "shape"),
        ([node("Pow", "x half")], "exponent"),
        ([node("Div", "x zero")], "is 0"),
        ([node("ReduceSum", "x")], "the batch too"),
        ([node("Reshape", "x flat")], "batch"),
        ([node("Cast", "x", to=TensorProto.INT64)], "floating point"),
        ([node("Add", "x per")], "from sample to sample"),
        ([node("Abs", "x", "y"), node("Exp", "x", "z")], "several outputs"),
    ],
)
def test_refusals_say_why(nodes: list[Any], why: str) -> None:
    weights = {
        "w": normal(4, 4),
        "v": normal(5, 3),
        "half": np.float32(1.5),
        "zero": np.zeros(4, np.float32),
        "flat": np.array([2, -1, 2]),
        "per": normal(3, 4),
    }
    outputs = ("y", "z") if len(nodes) == 2 and nodes[1].op_type == "Exp" else ("y",)
    with pytest.raises(LatticeError, match=why) as caught:
        load(model(nodes, ("N", 4), weights, outputs))
    assert caught.value.code == "model_unsupported"
