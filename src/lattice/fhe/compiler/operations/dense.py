"""Full and sparse matrices."""

from __future__ import annotations

from dataclasses import dataclass

from lattice.fhe.compiler.graph import Real, Shape
from lattice.fhe.compiler.operations.sizes import refusal, size
from lattice.fhe.compiler.operations.sparse import Sparse


@dataclass(frozen=True, eq=False)
class Dense:
    """weight·x + bias, on a sample of any shape, flattened in C order."""

    weight: Real
    """`[out, in]`"""
    bias: Real
    """`[out]`"""

    @classmethod
    def of(cls, sparse: Sparse) -> Dense:
        """The same layer with every entry written out."""
        return cls(sparse.dense(), sparse.bias)

    def shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if size(shape) != self.weight.shape[1]:
            raise refusal(f"A dense layer of {self.weight.shape[1]} inputs is given a tensor of shape {shape}.")
        return (self.weight.shape[0],)

    def forward(self, *inputs: Real) -> Real:
        (x,) = inputs
        return x.reshape(len(x), -1) @ self.weight.T + self.bias

    def matrix(self, shape: Shape) -> Sparse:
        self.shape(shape)
        return Sparse.of(self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class Matrix:
    """A layer given by its entries, whose output has a shape: what merging layers leaves."""

    sparse: Sparse
    output: Shape

    def shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if size(shape) != self.sparse.inputs or size(self.output) != self.sparse.outputs:
            raise refusal(f"A matrix of {self.sparse.inputs} inputs is given a tensor of shape {shape}.")
        return self.output

    def forward(self, *inputs: Real) -> Real:
        (x,) = inputs
        return self.sparse.apply(x.reshape(len(x), -1)).reshape(len(x), *self.output)

    def matrix(self, shape: Shape) -> Sparse:
        self.shape(shape)
        return self.sparse
