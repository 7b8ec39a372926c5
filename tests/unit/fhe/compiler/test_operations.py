"""Operations compute what ONNX says, and the matrix that packing reads is the operation itself."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import operations as ops
from tests.unit.fhe.compiler.onnx_models import model, reference

RANDOM = np.random.default_rng(4)


@st.composite
def windows(draw: st.DrawFn) -> dict[str, tuple[int, ...]]:
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    return {
        "kernel": draw(pair),
        "stride": draw(pair),
        "pads": draw(st.tuples(*[st.integers(0, 2)] * 4)),
        "dilation": draw(st.tuples(st.integers(1, 2), st.integers(1, 2))),
        "grid": draw(st.tuples(st.integers(3, 8), st.integers(3, 8))),
    }


def check_matrix(operation: ops.Linear, x: np.ndarray) -> None:
    """matrix() and forward() agree, and no entry occurs twice."""
    sparse = operation.matrix(x.shape[1:])
    flat = x.reshape(len(x), -1)
    expected = operation.forward(x).reshape(len(x), -1)
    assert operation.forward(x).shape[1:] == operation.shape(x.shape[1:])
    assert len(set(zip(sparse.rows.tolist(), sparse.columns.tolist(), strict=True))) == sparse.entries
    np.testing.assert_allclose(flat @ sparse.dense().T + sparse.bias, expected, atol=1e-12)
    np.testing.assert_allclose(sparse.apply(flat), expected, atol=1e-12)


def fits(w: dict[str, tuple[int, ...]]) -> bool:
    spans = [(k - 1) * d + 1 for k, d in zip(w["kernel"], w["dilation"], strict=True)]
    return all(w["grid"][a] + w["pads"][a] + w["pads"][a + 2] >= spans[a] for a in (0, 1))


@settings(deadline=None, max_examples=60)
@given(w=windows(), groups=st.integers(1, 3), per_group=st.integers(1, 2), each=st.integers(1, 2))
def test_convolution(w: dict[str, tuple[int, ...]], groups: int, per_group: int, each: int) -> None:
    assume(fits(w))
    weight = RANDOM.normal(size=(groups * each, per_group, *w["kernel"]))
    bias = RANDOM.normal(size=groups * each)
    operation = ops.Convolution(weight, bias, w["stride"], w["pads"], w["dilation"], groups)
    x = RANDOM.normal(size=(2, groups * per_group, *w["grid"]))
    node = helper.make_node(
        "Conv",
        ["x", "w", "b"],
        ["y"],
        strides=w["stride"],
        pads=w["pads"],
        dilations=w["dilation"],
        group=groups,
    )
    proto = model([node], x.shape, {"w": weight.astype(np.float32), "b": bias.astype(np.float32)})
    np.testing.assert_allclose(operation.forward(x), reference(proto, x), atol=1e-4)
    check_matrix(operation, x)


def slow_average(pool: ops.AveragePool, x: np.ndarray) -> np.ndarray:
    """The definition, window by window."""
    out = np.zeros((*x.shape[:2], *pool.windows.grid(x.shape[2:])))
    (height, width), (top, left, bottom, right) = x.shape[2:], pool.pads
    for row, column in np.ndindex(*out.shape[2:]):
        down = [row * pool.stride[0] - top + k * pool.dilation[0] for k in range(pool.kernel[0])]
        across = [column * pool.stride[1] - left + k * pool.dilation[1] for k in range(pool.kernel[1])]
        taps = [x[:, :, r, c] for r in down for c in across if 0 <= r < height and 0 <= c < width]
        rows = [r for r in down if not pool.include_pad or r < height + bottom]
        columns = [c for c in across if not pool.include_pad or c < width + right]
        count = len(rows) * len(columns) if pool.include_pad else len(taps)
        out[:, :, row, column] = sum(taps) / max(1, count)
    return out


@settings(deadline=None, max_examples=60)
@given(w=windows(), include=st.booleans(), ceil=st.booleans())
def test_average_pool(w: dict[str, tuple[int, ...]], include: bool, ceil: bool) -> None:
    assume(fits(w))
    assume(all(w["pads"][a] < w["kernel"][a] and w["pads"][a + 2] < w["kernel"][a] for a in (0, 1)))
    operation = ops.AveragePool(w["kernel"], w["stride"], w["pads"], w["dilation"], include, ceil)
    x = RANDOM.normal(size=(2, 2, *w["grid"]))
    if ceil:  # ONNX's evaluator shifts the windows then; PyTorch and the text of the standard do not
        np.testing.assert_allclose(operation.forward(x), slow_average(operation, x), atol=1e-12)
        check_matrix(operation, x)
        return
    node = helper.make_node(
        "AveragePool",
        ["x"],
        ["y"],
        kernel_shape=w["kernel"],
        strides=w["stride"],
        pads=w["pads"],
        dilations=w["dilation"],
        count_include_pad=int(include),
    )
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it divides by nothing where a window holds padding only; we say 0
        expected = np.nan_to_num(reference(model([node], x.shape), x))
    np.testing.assert_allclose(operation.forward(x), expected, atol=1e-5)
    check_matrix(operation, x)


@pytest.mark.parametrize(
    ("operation", "shape"),
    [
        (ops.Dense(RANDOM.normal(size=(3, 8)), RANDOM.normal(size=3)), (2, 4)),
        (ops.Affine(RANDOM.normal(size=(3, 1, 1)), RANDOM.normal(size=(1,))), (3, 2, 5)),
        (ops.Affine(np.array([2.0, 0.0]), np.ones((3, 1))), (2,)),
        (ops.Permute((2, 0, 1)), (2, 3, 4)),
        (ops.Reshape((4, 3)), (2, 6)),
        (ops.Matrix(ops.Sparse.gather(np.array([3, -1, 0, 0]), 4), (2, 2)), (4,)),
    ],
)
def test_other_linear_operations(operation: ops.Linear, shape: tuple[int, ...]) -> None:
    check_matrix(operation, RANDOM.normal(size=(3, *shape)))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_layers_multiply(out: int, middle: int, inputs: int, density: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    left = random.normal(size=(out, middle)) * (random.random((out, middle)) < density)
    right = random.normal(size=(middle, inputs)) * (random.random((middle, inputs)) < density)
    outer, inner = ops.Sparse.of(left, random.normal(size=out)), ops.Sparse.of(right, random.normal(size=middle))
    both = outer.after(inner)
    np.testing.assert_allclose(both.dense(), left @ right, atol=1e-12)
    np.testing.assert_allclose(both.bias, left @ inner.bias + outer.bias, atol=1e-12)
    assert both.entries <= outer.products(inner)


def test_large_layers_multiply_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lattice.fhe.compiler.operations.sparse.EXPANSION", 50)
    left, right = RANDOM.normal(size=(9, 20)), RANDOM.normal(size=(20, 12))
    both = ops.Sparse.of(left, np.zeros(9)).after(ops.Sparse.of(right, np.ones(20)))
    np.testing.assert_allclose(both.dense(), left @ right, atol=1e-12)


def test_square_series_is_exactly_a_square() -> None:
    x = RANDOM.normal(size=(4, 5)) * 7
    series = ops.Series((0.5, 0.0, 0.5))
    assert series.is_square
    assert not ops.Series((0.5, 0.0, 0.5), (-2.0, 2.0)).is_square
    np.testing.assert_allclose(series.forward(x), ops.Square().forward(x), atol=1e-12)
    np.testing.assert_allclose(ops.Power(2).forward(x), x * x)


ONNX_FUNCTIONS = {
    "relu": ("Relu", {}, ()),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.2}, (0.2,)),
    "gelu": ("Gelu", {}, ()),
    "gelu_tanh": ("Gelu", {"approximate": "tanh"}, ()),
    "sigmoid": ("Sigmoid", {}, ()),
    "hard_sigmoid": ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, (0.3, 0.4)),
    "tanh": ("Tanh", {}, ()),
    "softplus": ("Softplus", {}, ()),
    "softsign": ("Softsign", {}, ()),
    "hard_swish": ("HardSwish", {}, ()),
    "mish": ("Mish", {}, ()),
    "elu": ("Elu", {"alpha": 0.7}, (0.7,)),
    "celu": ("Celu", {"alpha": 0.7}, (0.7,)),
    "selu": ("Selu", {"alpha": 1.6, "gamma": 1.1}, (1.6, 1.1)),
    "exp": ("Exp", {}, ()),
    "erf": ("Erf", {}, ()),
    "abs": ("Abs", {}, ()),
}


@pytest.mark.parametrize("name", sorted(ONNX_FUNCTIONS))
def test_functions_are_those_of_onnx(name: str) -> None:
    operator, attributes, parameters = ONNX_FUNCTIONS[name]
    x = np.linspace(-6, 6, 101).reshape(1, -1)
    proto = model([helper.make_node(operator, ["x"], ["y"], **attributes)], x.shape)
    ours = ops.Activation(name, parameters).forward(x)
    np.testing.assert_allclose(ours, reference(proto, x), atol=2e-5, rtol=1e-5)


def test_shapes_that_do_not_fit_are_refused() -> None:
    wrong = [
        lambda: ops.Dense(np.ones((2, 3)), np.zeros(2)).shape((4,)),
        lambda: ops.Convolution(np.ones((2, 3, 9, 9)), np.zeros(2)).shape((3, 4, 4)),
        lambda: ops.Convolution(np.ones((2, 3, 1, 1)), np.zeros(2)).shape((2, 4, 4)),
        lambda: ops.Sum().shape((3,), (4,)),
        lambda: ops.Permute((0, 0)).shape((3, 3)),
        lambda: ops.Reshape((5,)).shape((3, 3)),
        lambda: ops.Activation("gamma"),
        lambda: ops.Power(0),
    ]
    for call in wrong:
        with pytest.raises(LatticeError, match="model_unsupported"):
            call()
