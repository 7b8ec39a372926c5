"""Operations on two tensors of one shape."""

from __future__ import annotations

from dataclasses import dataclass

from lattice.fhe.compiler.graph import Real, Shape
from lattice.fhe.compiler.operations.sizes import refusal


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two tensors of one shape in, one out; importers write broadcasting as a layer of its own."""

    def shape(self, *inputs: Shape) -> Shape:
        left, right = inputs
        if left != right:
            raise refusal(f"{type(self).__name__} of two tensors of different shapes {left} and {right}.")
        return left


@dataclass(frozen=True, eq=False)
class Sum(_Pair):
    """a + b: a residual connection."""

    def forward(self, *inputs: Real) -> Real:
        left, right = inputs
        return left + right


@dataclass(frozen=True, eq=False)
class Difference(_Pair):
    """a − b."""

    def forward(self, *inputs: Real) -> Real:
        left, right = inputs
        return left - right


@dataclass(frozen=True, eq=False)
class Product(_Pair):
    """a·b entry by entry: one level."""

    def forward(self, *inputs: Real) -> Real:
        left, right = inputs
        return left * right
