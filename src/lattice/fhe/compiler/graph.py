"""A model as a graph of operations on real tensors: what importers make, passes rewrite and packing lowers.

Shapes are those of one sample; arrays have the batch in front. Every operation can run in the clear (`forward`), in
float64, so calibration, accuracy in the clear and the tests of every pass need nothing but numpy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError

Real = NDArray[np.float64]
Shape = tuple[int, ...]


class Operation(Protocol):
    """One step of a model; `operations` has them all."""

    def shape(self, *inputs: Shape) -> Shape:
        """The output's shape; `model_unsupported` where the inputs do not fit."""
        ...

    def forward(self, *inputs: Real) -> Real:
        """The step in the clear, on `[batch, …]`."""
        ...


@dataclass(frozen=True, eq=False)
class Node:
    """An operation, the names of the values that it reads, and the name of the one that it makes."""

    name: str
    operation: Operation
    inputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """One input, one output, nodes in topological order."""

    input: str
    input_shape: Shape
    nodes: tuple[Node, ...]
    output: str
    name: str = field(default="model")

    def shapes(self) -> dict[str, Shape]:
        """The shape of every value, by name."""
        shapes = {self.input: self.input_shape}
        for node in self.nodes:
            shapes[node.name] = node.operation.shape(*(self._find(shapes, name) for name in node.inputs))
        return shapes

    @property
    def output_shape(self) -> Shape:
        """The shape of the output."""
        return self.shapes()[self.output]

    def trace(self, samples: Real) -> dict[str, Real]:
        """Every value in the clear, by name, for samples `[batch, *input_shape]`."""
        values = {self.input: np.asarray(samples, dtype=np.float64).reshape(-1, *self.input_shape)}
        for node in self.nodes:
            values[node.name] = node.operation.forward(*(values[name] for name in node.inputs))
        return values

    def run(self, samples: Real, memory: int = 1 << 28) -> Real:
        """The output in the clear, in batches whose values take about `memory` bytes."""
        x = np.asarray(samples, dtype=np.float64).reshape(-1, *self.input_shape)
        each = 8 * sum(math.prod(shape) for shape in self.shapes().values())
        step = max(1, memory // max(1, each))
        parts = [self.trace(x[start : start + step])[self.output] for start in range(0, len(x), step)]
        return np.concatenate(parts) if parts else np.zeros((0, *self.output_shape))

    @staticmethod
    def _find(shapes: dict[str, Shape], name: str) -> Shape:
        if name not in shapes:
            raise LatticeError("model_unsupported", f"The value {name!r} is read before it is made.")
        return shapes[name]
