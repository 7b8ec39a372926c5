"""Moving entries about: no arithmetic, always merged away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lattice.fhe.compiler.graph import Real, Shape
from lattice.fhe.compiler.operations.sizes import refusal, size
from lattice.fhe.compiler.operations.sparse import Sparse


@dataclass(frozen=True, eq=False)
class Permute:
    """The axes of a sample in another order; the batch stays in front."""

    axes: tuple[int, ...]

    def shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if sorted(self.axes) != list(range(len(shape))):
            raise refusal(f"A tensor of shape {shape} cannot have its axes ordered {self.axes}.")
        return tuple(shape[axis] for axis in self.axes)

    def forward(self, *inputs: Real) -> Real:
        (x,) = inputs
        return x.transpose(0, *(axis + 1 for axis in self.axes))

    def matrix(self, shape: Shape) -> Sparse:
        self.shape(shape)
        index = np.arange(size(shape), dtype=np.int64).reshape(shape)
        return Sparse.gather(index.transpose(self.axes).ravel(), size(shape))


@dataclass(frozen=True, eq=False)
class Reshape:
    """The same entries in C order under another shape."""

    output: Shape

    def shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if size(shape) != size(self.output):
            raise refusal(f"A tensor of shape {shape} cannot be given the shape {self.output}.")
        return self.output

    def forward(self, *inputs: Real) -> Real:
        (x,) = inputs
        return x.reshape(len(x), *self.output)

    def matrix(self, shape: Shape) -> Sparse:
        self.shape(shape)
        return Sparse.gather(np.arange(size(shape), dtype=np.int64), size(shape))
