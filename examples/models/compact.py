"""A model in a quarter of its bytes: matrices as eight-bit numbers with one float32 factor a row.

The model *is* what comes out of `unpack`, bit for bit: weights are rounded before accuracy is measured. Needs onnx and
numpy only, so that whoever runs an example needs no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

GRAPH = "graph"


class Rounded(NamedTuple):
    """codes · factor, row by row."""

    codes: NDArray[np.int8]
    factor: NDArray[np.float32]

    @property
    def values(self) -> NDArray[np.float32]:
        """What the model uses."""
        return self.codes.astype(np.float32) * self.factor


def round_rows(weights: NDArray[np.float32]) -> Rounded:
    """The nearest of 255 numbers, evenly spaced in every row."""
    axes = tuple(range(1, weights.ndim))
    factor = (np.abs(weights).max(axis=axes, keepdims=True) / 127 + 1e-12).astype(np.float32)
    return Rounded(np.rint(weights / factor).astype(np.int8), factor)


def pack(model: Path, rounded: dict[str, Rounded], packed: Path) -> None:
    """Write `packed`: the graph without its arrays, and the arrays."""
    graph = onnx.load(model)
    arrays: dict[str, NDArray[np.generic]] = {}
    for tensor in graph.graph.initializer:
        if tensor.name in rounded:
            arrays[f"{tensor.name}/codes"], arrays[f"{tensor.name}/factor"] = rounded[tensor.name]
        else:
            arrays[tensor.name] = numpy_helper.to_array(tensor)
    del graph.graph.initializer[:]
    np.savez_compressed(packed, **{GRAPH: np.frombuffer(graph.SerializeToString(), np.uint8)}, **arrays)
    if unpack(packed) != model.read_bytes():
        raise ValueError(f"{packed} does not give {model} back: were its weights rounded?")


def unpack(packed: Path) -> bytes:
    """The ONNX file."""
    with np.load(packed, allow_pickle=False) as arrays:
        model = onnx.load_model_from_string(arrays[GRAPH].tobytes())
        for name in (entry for entry in arrays.files if entry != GRAPH and not entry.endswith("/factor")):
            tensor = name.removesuffix("/codes")
            values = arrays[name] if tensor == name else Rounded(arrays[name], arrays[f"{tensor}/factor"]).values
            model.graph.initializer.append(numpy_helper.from_array(values, tensor))
    return model.SerializeToString()
