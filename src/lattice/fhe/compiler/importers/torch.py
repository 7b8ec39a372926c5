"""PyTorch modules, through `torch.onnx.export`; torch is imported only here, when a module is given."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.importers.onnx import load_onnx


def is_torch(model: Any) -> bool:
    """Whether this object is a `torch.nn.Module`, without importing torch."""
    return any(kind.__module__.startswith("torch.nn") and kind.__name__ == "Module" for kind in type(model).__mro__)


def load_torch(model: Any, sample: Any) -> Imported:
    """A module in evaluation mode, traced on one sample (batch in front); the module itself is not changed."""
    import torch

    if sample is None:
        raise LatticeError(
            "model_unsupported", "A torch module needs a sample to be traced on: pass one, or calibration samples."
        )
    example = torch.as_tensor(np.asarray(sample)[:1], dtype=torch.float32)
    training, buffer = model.training, io.BytesIO()
    try:
        model.eval()
        with torch.no_grad(), warnings.catch_warnings():
            # The tracing exporter needs nothing but torch; the other one wants onnxscript.
            warnings.simplefilter("ignore", DeprecationWarning)
            torch.onnx.export(
                model,
                (example,),
                buffer,
                dynamo=False,
                opset_version=20,
                input_names=["features"],
                dynamic_axes={"features": {0: "batch"}},
            )
    except LatticeError:
        raise
    except Exception as error:
        raise LatticeError("model_unsupported", f"torch cannot export the module: {error}") from None
    finally:
        model.train(training)
    return load_onnx(buffer.getvalue())
