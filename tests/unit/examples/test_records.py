"""The committed models: what training wrote down is about these very files, and every value stays small.

Squares of large values drown the precision of all others, so a model whose ranges grew must not be committed unseen.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from examples.models.compact import pack, round_rows, unpack

MODELS = Path(__file__).parents[3] / "examples" / "models"
RECORDS = sorted(MODELS.glob("*/model.json"))
LEAST = {
    "breast_cancer": 0.96,
    "credit": 0.78,
    "mnist_lenet": 0.99,
    "mnist_lola": 0.985,
    "mnist_mlp": 0.98,
    "mnist_relu_mlp": 0.98,
    "sentiment": 0.86,
}


def test_every_model_has_a_record() -> None:
    assert {path.parent.name for path in RECORDS} == set(LEAST)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_record_is_of_this_file(path: Path) -> None:
    record: dict[str, Any] = json.loads(path.read_text())
    packed = path.with_name("model.npz")
    model = unpack(packed) if packed.exists() else path.with_name("model.onnx").read_bytes()
    assert hashlib.sha256(model).hexdigest() == record["onnx_sha256"], "train it again, or restore the file"
    assert record["accuracy"] >= LEAST[path.parent.name]
    assert max(abs(value) for pair in record["ranges"].values() for value in pair) < 100
    assert max(abs(value) for value in list(record["ranges"].values())[-1]) < 50
    assert sum(file.stat().st_size for file in path.parent.glob("model.*")) < 2e6


def test_rounded_rows_survive_packing(tmp_path: Path) -> None:
    weights = np.random.default_rng(4).normal(size=(3, 5)).astype(np.float32)
    rounded = round_rows(weights)
    assert np.abs(rounded.values - weights).max() <= rounded.factor.max() / 2 * 1.001
    helper, proto = onnx.helper, onnx.TensorProto
    entry, result = (helper.make_tensor_value_info(name, proto.FLOAT, [1, None]) for name in "xy")
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)
    tensor = onnx.numpy_helper.from_array(rounded.values, "w")
    model = helper.make_model(helper.make_graph([node], "g", [entry], [result], [tensor]))
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    pack(path, {"w": rounded}, tmp_path / "model.npz")
    assert unpack(tmp_path / "model.npz") == path.read_bytes()


def test_packing_refuses_weights_that_were_not_rounded(tmp_path: Path) -> None:
    helper, proto = onnx.helper, onnx.TensorProto
    weights = np.random.default_rng(4).normal(size=(3, 5)).astype(np.float32)
    entry, result = (helper.make_tensor_value_info(name, proto.FLOAT, [1, None]) for name in "xy")
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        "g",
        [entry],
        [result],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph), path)
    with pytest.raises(ValueError, match="were its weights rounded"):
        pack(path, {"w": round_rows(weights)}, tmp_path / "model.npz")
