"""A PyTorch module is imported through ONNX export and computes the same; without torch there is nothing to test."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.activations import Budget
from lattice.fhe.compiler.client_steps import finish
from lattice.fhe.compiler.front import front
from lattice.fhe.compiler.importers import load

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'lattice[torch]'")


def test_a_module_is_imported() -> None:
    torch.manual_seed(1)
    nn = torch.nn
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.GELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(64, 10),
        nn.Hardswish(),
        nn.Linear(10, 3),
        nn.LogSoftmax(dim=1),
    )
    module(torch.randn(64, 1, 8, 8))  # running statistics
    module.eval()
    x = np.random.default_rng(1).normal(size=(40, 1, 8, 8)).astype(np.float32)
    imported = load(module, x)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(finish(imported.after, imported.graph.run(x)).values, expected, atol=1e-4)
    done = front(module, x, budget=Budget(0.005))
    assert [type(node.operation).__name__ for node in done.graph.nodes] == [
        "Convolution", "Series", "Dense", "Square", "Dense",
    ]  # fmt: skip
    with pytest.raises(LatticeError, match="sample"):
        load(module)
