"""Hostile model files: typed errors, no other file opened, memory bounded, whatever the bytes say."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.check import check
from lattice.fhe.compiler.importers import load
from lattice.fhe.compiler.passes import simplify
from tests.unit.fhe.compiler.onnx_models import model

REFUSED = {"model_invalid", "model_unsupported"}
LIMIT = 64 << 20
"""Bytes that refusing a small file may take at the most."""


def good() -> onnx.ModelProto:
    random = np.random.default_rng(1)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "d"], ["g"]),
        helper.make_node("Softmax", ["g"], ["y"]),
    ]
    weights = {
        "w": random.normal(size=(2, 1, 3, 3)).astype(np.float32),
        "b": np.zeros(2, np.float32),
        "d": random.normal(size=(32, 3)).astype(np.float32),
    }
    return model(nodes, ("N", 1, 4, 4), weights)


def refused(source: Any, limit: int = LIMIT) -> LatticeError:
    tracemalloc.start()
    try:
        with pytest.raises(LatticeError) as caught:
            load(source)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.code in REFUSED
    assert peak < limit
    return caught.value


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    refused(data)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_model_is_refused_or_read(data: st.DataObject) -> None:
    """One to four bytes are changed, or the end is cut off: an answer or a typed error, never anything else."""
    raw = bytearray(good().SerializeToString())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw) - 1))]
    for _ in range(data.draw(st.integers(1, 4))):
        if raw:
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    code = None
    try:
        simplify(load(bytes(raw)))
    except LatticeError as error:
        code = error.code
    assert code in {None, *REFUSED}


def changed(change: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    proto = good()
    change(proto)
    return proto


def huge_weight(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].ClearField("dims")
    proto.graph.initializer[0].dims.extend([1 << 20, 1 << 20])


def claims_more(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = 1 << 20


def negative(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].dims[0] = -3


def external(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def strings(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.STRING, [2], [b"a", b"b"]))


def sparse(proto: onnx.ModelProto) -> None:
    proto.graph.sparse_initializer.add()


def huge_input(proto: onnx.ModelProto) -> None:
    for dim in proto.graph.input[0].type.tensor_type.shape.dim:
        dim.dim_value = 1 << 40


def unknown_input(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"


def two_inputs(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4]))


def no_output(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].name = "nowhere"


def cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].input[0] = "g"


def twice(proto: onnx.ModelProto) -> None:
    proto.graph.node[1].output[0] = "c"


def backwards(proto: onnx.ModelProto) -> None:
    nodes = list(proto.graph.node)[::-1]
    proto.graph.ClearField("node")
    proto.graph.node.extend(nodes)


def old(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 1


def future(proto: onnx.ModelProto) -> None:
    proto.opset_import[0].version = 1 << 40


def zero_stride(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("strides", [0, 0]))


def huge_pads(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("pads", [1 << 40] * 4))


def many_groups(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("group", 1 << 50))


def no_groups(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute.append(helper.make_attribute("group", 0))


def attribute_of_another_type(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].attribute[0].CopyFrom(helper.make_attribute("pads", b"ones"))


def many_nodes(proto: onnx.ModelProto) -> None:
    proto.graph.node.extend(helper.make_node("Relu", [f"n{i}"], [f"n{i + 1}"]) for i in range(30_000))


DAMAGE = [
    huge_weight, claims_more, negative, external, strings, sparse, huge_input, unknown_input, two_inputs, no_output,
    cycle, twice, backwards, old, future, zero_stride, huge_pads, many_groups, no_groups, attribute_of_another_type,
    many_nodes,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_refused(damage: Callable[[onnx.ModelProto], Any]) -> None:
    refused(changed(damage).SerializeToString())


def test_external_weights_are_not_opened(tmp_path: Path) -> None:
    """`onnx.load` would follow the path; a model may not read files of whoever compiles it."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(72))
    proto = good()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret")
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    assert "inside" in refused(path).message


BOMBS = {
    "expand": [helper.make_node("Expand", ["x", "many"], ["y"])],
    "tile": [helper.make_node("Tile", ["x", "repeats"], ["y"])],
    "pad": [helper.make_node("Pad", ["x", "pads"], ["y"])],
    "constant-of-shape": [
        helper.make_node("ConstantOfShape", ["many"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ],
    "range": [helper.make_node("Range", ["zero", "far", "one"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])],
    "outer": [helper.make_node("Mul", ["row", "column"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])],
    "product": [helper.make_node("MatMul", ["column", "row"], ["c"]), helper.make_node("Add", ["x", "c"], ["y"])],
    "broadcast": [helper.make_node("Mul", ["x", "cube"], ["y"])],
    "gather": [
        helper.make_node("Gather", ["x", "places"], ["a"], axis=1),
        helper.make_node("Gather", ["a", "places"], ["b"], axis=1),
        helper.make_node("Gather", ["b", "places"], ["c"], axis=1),
        helper.make_node("Gather", ["c", "places"], ["y"], axis=1),
    ],
    "doubling": [helper.make_node("Concat", [f"a{i}"] * 2, [f"a{i + 1}"], axis=1) for i in range(60)],
    "power": [helper.make_node("Pow", ["x", "far"], ["y"])],
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_small_files_cannot_ask_for_large_memory(name: str) -> None:
    nodes = BOMBS[name]
    if name == "doubling":
        nodes = [helper.make_node("Identity", ["x"], ["a0"]), *nodes, helper.make_node("Identity", ["a60"], ["y"])]
    weights = {
        "many": np.array([1, 1 << 20, 1 << 20]),
        "repeats": np.array([1, 1 << 20, 1 << 20]),
        "pads": np.array([0, 1 << 30, 0, 0, 1 << 30, 0]),
        "zero": np.array(0),
        "one": np.array(1),
        "far": np.array(1 << 40),
        "row": np.zeros((1, 1 << 17), np.float32),
        "column": np.zeros((1 << 17, 1), np.float32),
        "cube": np.zeros((1 << 18, 1), np.float32),
        "places": np.zeros((1 << 6, 1 << 6), np.int64),
    }
    shape = ("N", 4, 1 << 12) if name == "broadcast" else ("N", 4, 4)
    proto = model(nodes, shape, weights)
    # Those that grow step by step are refused at the limit on one value.
    refused(proto, 1 << 29 if name in ("gather", "doubling") else LIMIT)


def test_weights_that_are_not_finite_are_refused() -> None:
    proto = good()
    weight = numpy_helper.to_array(proto.graph.initializer[0]).copy()
    weight[0, 0, 1, 1] = np.nan
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    with pytest.raises(LatticeError, match="NaN") as caught:
        simplify(load(proto))
    assert caught.value.code == "model_invalid"


def test_hidden_graphs_and_functions_are_not_run() -> None:
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["o"])], "b", [], [])
    branch = helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body)
    proto = model([branch], ("N", 4))
    assert "If" in refused(proto).message
    custom = model([helper.make_node("Own", ["x"], ["y"], domain="evil")], ("N", 4))
    assert "evil.Own" in refused(custom).message


def test_a_missing_file_is_named_without_its_folder(tmp_path: Path) -> None:
    error = refused(tmp_path / "missing.onnx")
    assert "missing.onnx" in error.message
    assert str(tmp_path) not in error.message


def test_nothing_of_these_breaks_the_check() -> None:
    assert check(good()).supported
