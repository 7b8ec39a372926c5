"""Small ONNX models for the tests, and what the reference evaluator says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator


def model(
    nodes: Sequence[Any],
    shape: Sequence[int | str],
    weights: dict[str, np.ndarray] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 20,
    ml: bool = False,
) -> onnx.ModelProto:
    """A model of one float32 input `x` of this shape (batch in front)."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    opsets = [helper.make_opsetid("", opset)] + ([helper.make_opsetid("ai.onnx.ml", 3)] if ml else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def reference(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    """What ONNX's own evaluator gives for the first output."""
    return np.asarray(ReferenceEvaluator(proto).run(None, {"x": x.astype(np.float32)})[0], dtype=np.float64)
