"""From bytes to a checked ONNX model: sizes are bounded before anything is allocated for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.operations.sizes import LARGEST

FILE_LIMIT = 1 << 30
NODE_LIMIT = 20_000
Array = NDArray[Any]


def invalid(message: str) -> LatticeError:
    """The error for a file that is not a proper model."""
    return LatticeError("model_invalid", message)


def onnx_package() -> Any:
    """The `onnx` package, which is an extra."""
    try:
        import onnx
        import onnx.numpy_helper
        import onnx.reference
    except ImportError:
        raise LatticeError(
            "model_unsupported", "Reading ONNX needs the package onnx: pip install 'lattice[convert]'."
        ) from None
    return onnx


def parse(source: Any) -> Any:
    """A `ModelProto` from a path, bytes or a `ModelProto`."""
    onnx = onnx_package()
    if isinstance(source, onnx.ModelProto):
        model = source
    else:
        data = _bytes(source)
        try:
            model = onnx.ModelProto.FromString(data)
        except Exception:  # protobuf's implementations raise different classes
            raise invalid("The file is not an ONNX model: its protobuf cannot be read.") from None
    _check(model)
    return model


def _bytes(source: Any) -> bytes:
    if isinstance(source, bytes | bytearray | memoryview):
        data = bytes(source)
    else:
        path = Path(source)
        if not path.is_file():
            raise invalid(f"There is no file {path.name!r}.")
        if path.stat().st_size > FILE_LIMIT:
            raise invalid(f"{path.name!r} is larger than {FILE_LIMIT >> 20} MiB.")
        data = path.read_bytes()
    if not 0 < len(data) <= FILE_LIMIT:
        raise invalid(f"A model has between 1 byte and {FILE_LIMIT >> 20} MiB; this has {len(data)} bytes.")
    return data


def _check(model: Any) -> None:
    graph = model.graph
    if not model.opset_import or (not graph.node and not graph.output):
        raise invalid("The file is not an ONNX model: it has no graph or names no operator set.")
    if len(graph.node) > NODE_LIMIT:
        raise invalid(f"The model has {len(graph.node)} nodes; the compiler reads at most {NODE_LIMIT}.")
    if len(graph.sparse_initializer):
        raise invalid("The model has sparse weights; export it with ordinary ones.")
    if sum(_entries(tensor.dims) for tensor in graph.initializer) > LARGEST:
        raise invalid(f"The model's weights claim more than {LARGEST:,} numbers.")


def _entries(dims: Any) -> int:
    total = 1
    for extent in dims:
        if extent < 0:
            raise invalid("A tensor of the model has a negative dimension.")
        total *= extent
        if total > LARGEST:
            raise invalid(f"A tensor of the model claims more than {LARGEST:,} entries.")
    return total


def array(tensor: Any) -> Array:
    """The numbers of a `TensorProto` as float64 or int64 (strings and booleans as they are)."""
    onnx = onnx_package()
    if tensor.data_location == onnx.TensorProto.EXTERNAL or len(tensor.external_data):
        raise invalid(
            f"The weights of {tensor.name!r} lie in another file. Save the model with its weights inside: "
            "onnx.save(model, path, save_as_external_data=False)."
        )
    entries = _entries(tensor.dims)
    held = max(
        len(tensor.raw_data) * 8,  # sub-byte types
        *(len(getattr(tensor, name)) * 2 for name in ("float_data", "int32_data", "int64_data", "double_data")),
        len(tensor.uint64_data),
        len(tensor.string_data),
    )
    if held < entries:
        raise invalid(f"The tensor {tensor.name!r} claims {entries} entries and holds fewer.")
    try:
        value = onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # whatever numpy or protobuf made of a damaged tensor
        raise invalid(f"The tensor {tensor.name!r} cannot be read: {type(error).__name__}.") from None
    return normal(value)


def normal(raw: Any) -> Array:
    """Numbers widened to float64 or int64; other things as they are."""
    value: Array = np.asarray(raw)
    if value.dtype.kind in "fV" or value.dtype.name.startswith(("bfloat", "float")):
        return value.astype(np.float64)
    if value.dtype.kind in "iu":
        return value.astype(np.int64)
    return value
