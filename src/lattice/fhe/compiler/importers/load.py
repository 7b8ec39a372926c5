"""Any model: which importer reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.importers.onnx import load_onnx
from lattice.fhe.compiler.importers.sklearn import is_sklearn, load_sklearn
from lattice.fhe.compiler.importers.torch import is_torch, load_torch


def load(model: Any, sample: Any = None) -> Imported:
    """From an ONNX file, its bytes or `ModelProto`, a fitted scikit-learn object, or (with a sample) a torch module."""
    if isinstance(model, Imported):
        return model
    if isinstance(model, str | Path | bytes | bytearray | memoryview) or type(model).__name__ == "ModelProto":
        return load_onnx(model)
    if is_sklearn(model):
        return load_sklearn(model)
    if is_torch(model):
        return load_torch(model, sample)
    raise LatticeError(
        "model_unsupported",
        f"A {type(model).__name__} is not a model: pass an ONNX file, a fitted scikit-learn object or a torch module.",
    )
