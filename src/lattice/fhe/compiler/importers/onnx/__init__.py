"""ONNX models. The `onnx` package reads the file; nothing of the file is run, and no other file is opened for it."""

from lattice.fhe.compiler.importers.onnx.model import load_onnx

__all__ = ["load_onnx"]
