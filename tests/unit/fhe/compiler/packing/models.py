"""Small graphs for the packing tests, from operations of their own: packing only ever asks for a matrix."""

from __future__ import annotations

import numpy as np

from lattice.fhe.compiler.graph import Graph, Node, Real, Shape
from lattice.fhe.compiler.operations import Sparse


class Layer:
    """A dense layer."""

    def __init__(self, weight: Real, bias: Real) -> None:
        self.weight, self.bias = np.asarray(weight, dtype=np.float64), np.asarray(bias, dtype=np.float64)

    def shape(self, *inputs: Shape) -> Shape:
        return (len(self.bias),)

    def forward(self, *inputs: Real) -> Real:
        return inputs[0].reshape(len(inputs[0]), -1) @ self.weight.T + self.bias

    def matrix(self, shape: Shape) -> Sparse:
        rows, columns = np.nonzero(self.weight)
        return Sparse(rows, columns, self.weight[rows, columns], self.bias, self.weight.shape[1])


def linear(weight: Real, bias: Real) -> Graph:
    """One dense layer."""
    layer = Layer(np.atleast_2d(weight), np.atleast_1d(bias))
    return Graph("x", (layer.weight.shape[1],), (Node("y", layer, ("x",)),), "y")
