"""Nodes that read only constants are worked out while importing: shapes, masks, folded weights.

ONNX's own evaluator does it, for a fixed list of operators, after the size of the answer has been bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lattice.fhe.compiler.importers.onnx.file import Array, normal, onnx_package
from lattice.fhe.compiler.operations.sizes import bounded, broadcast, refusal, size

BROADCAST = {"Add", "Sub", "Mul", "Div", "Pow", "Equal", "Less", "Greater", "Where", "Max", "Min", "Mod"}
NOT_LARGER = {
    "Identity",
    "Cast",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Flatten",
    "Neg",
    "Sqrt",
    "Exp",
    "Log",
    "Reciprocal",
    "Abs",
    "Floor",
    "Ceil",
    "Not",
    "Relu",
    "Shape",
    "Size",
    "Slice",
    "ReduceSum",
    "ReduceMean",
    "ReduceProd",
    "ReduceMax",
    "ReduceMin",
    "Concat",
    "DequantizeLinear",
    "Split",
}
FOLDABLE = BROADCAST | NOT_LARGER | {"ConstantOfShape", "Expand", "Range", "Gather", "MatMul"}


def fold(node: Any, opset: int, inputs: Sequence[Array | None]) -> list[Array]:
    """The outputs of a node whose inputs are all constants."""
    if node.op_type not in FOLDABLE:
        raise refusal("it works on constants only; let the exporter fold it away.")
    bounded(_entries(node.op_type, [value for value in inputs if value is not None]), "A folded constant")
    onnx = onnx_package()
    names = [name for name in node.input if name]
    given = {name: value for name, value in zip(node.input, inputs, strict=True) if value is not None}
    graph = onnx.helper.make_graph(
        [node],
        "constant",
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in dict.fromkeys(names)],
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.output],
    )
    try:
        with np.errstate(all="ignore"):
            model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
            results = onnx.reference.ReferenceEvaluator(model).run(None, given)
    except Exception as error:  # a hostile node may make the evaluator fail in any way
        raise refusal(f"it cannot be worked out from its constants ({type(error).__name__}).") from None
    return [normal(result) for result in results]


def _entries(operator: str, inputs: list[Array]) -> int:
    """A bound on the entries of the answer."""
    if operator in BROADCAST:
        return size(broadcast(*(value.shape for value in inputs)))
    if operator == "ConstantOfShape":
        return _product(inputs[0])
    if operator == "Expand":
        return _product(inputs[1]) * max(1, inputs[0].size)
    if operator == "Range":
        start, limit, delta = (float(value.ravel()[0]) for value in inputs)
        if not (np.isfinite([start, limit, delta]).all() and delta):
            raise refusal("its range is not finite.")
        return max(0, int((limit - start) / delta) + 1)
    if operator == "Gather":
        return inputs[0].size * max(1, inputs[1].size)
    if operator == "MatMul":
        return int(np.sqrt(float(inputs[0].size)) * np.sqrt(float(inputs[1].size))) + inputs[0].size * inputs[1].size
    return sum(value.size for value in inputs) + 64


def _product(shape: Array) -> int:
    if shape.dtype.kind not in "iu" or np.any(shape < 0):
        raise refusal("its shape is not a shape.")
    return size(tuple(int(extent) for extent in shape.ravel()))
