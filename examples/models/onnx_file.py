"""Writes a torch `Sequential` as ONNX with `onnx.helper` alone: the file depends on no exporter's version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

OPSET = 17


class Square(nn.Module):
    """x², written as Mul(x, x)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * x


class Standardise(nn.Module):
    """(x − mean)/deviation, written as Sub and Div, so that users send what they measured."""

    def __init__(self, samples: np.ndarray) -> None:
        super().__init__()
        # Rare choices have a tiny deviation: nothing may come out further than 8 from one end to the other.
        deviation = np.maximum(samples.std(axis=0), np.ptp(samples, axis=0) / 8 + 1e-9)
        self.register_buffer("mean", torch.tensor(samples.mean(axis=0), dtype=torch.float32))
        self.register_buffer("deviation", torch.tensor(deviation, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.deviation


class Writer:
    """Nodes and arrays of a graph in the making; `last` is the value that the next node reads."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.arrays: list[onnx.TensorProto] = []
        self.last = "input"

    def array(self, name: str, values: torch.Tensor) -> str:
        """A constant."""
        self.arrays.append(numpy_helper.from_array(values.detach().numpy().astype(np.float32), name))
        return name

    def node(self, kind: str, *inputs: str, **attributes: Any) -> None:
        """A node that reads the last value, then `inputs`."""
        out = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *inputs], [out], name=out, **attributes))
        self.last = out

    def module(self, name: str, module: nn.Module) -> None:
        """What torch's module does."""
        if isinstance(module, nn.Linear):
            self.node("Gemm", *self._weights(name, module), transB=1)
        elif isinstance(module, nn.Conv2d):
            pads = [*module.padding, *module.padding]
            self.node("Conv", *self._weights(name, module), strides=list(module.stride), pads=pads)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            parts = ("weight", "bias", "running_mean", "running_var")
            arrays = [self.array(f"{name}.{part}", getattr(module, part)) for part in parts]
            self.node("BatchNormalization", *arrays, epsilon=module.eps)
        elif isinstance(module, Standardise):
            self.node("Sub", self.array(f"{name}.mean", module.mean))
            self.node("Div", self.array(f"{name}.deviation", module.deviation))
        elif isinstance(module, Square):
            self.node("Mul", self.last)
        elif isinstance(module, nn.Flatten):
            self.node("Flatten", axis=1)
        else:
            self.node({nn.ReLU: "Relu", nn.Tanh: "Tanh", nn.Sigmoid: "Sigmoid"}[type(module)])

    def _weights(self, name: str, module: nn.Module) -> tuple[str, str]:
        return self.array(f"{name}.weight", module.weight), self.array(f"{name}.bias", module.bias)


def to_onnx(net: nn.Sequential, shape: tuple[int, ...], name: str) -> onnx.ModelProto:
    """The model in float32, with a free batch dimension; dropout is left out, as it does nothing after training."""
    writer = Writer()
    for part, module in net.named_children():
        if not isinstance(module, nn.Dropout):
            writer.module(part, module)
    outputs = net.eval()(torch.zeros(1, *shape)).shape[1]
    entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *shape])
    result = helper.make_tensor_value_info(writer.last, TensorProto.FLOAT, ["batch", outputs])
    graph = helper.make_graph(writer.nodes, name, [entry], [result], writer.arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="lattice examples")
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def write(net: nn.Sequential, shape: tuple[int, ...], path: Path) -> None:
    """Write `net` to `path`."""
    onnx.save(to_onnx(net, shape, path.parent.name), path)
