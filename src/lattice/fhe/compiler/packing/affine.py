"""Graphs that are one affine map, y = W·x + b: linear and logistic regression, linear SVMs, scalers and PCA in front."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.graph import Graph, Real
from lattice.fhe.compiler.operations import Linear

SUMS = ("Sum", "Difference")
"""Operations of two values that are linear without being one matrix."""


@dataclass(frozen=True, eq=False)
class Affine:
    """y = weights·x + bias."""

    weights: Real
    """`[outputs, features]`"""
    bias: Real
    """`[outputs]`"""

    @property
    def features(self) -> int:
        """How many numbers go in."""
        return int(self.weights.shape[1])

    @property
    def outputs(self) -> int:
        """How many come out."""
        return int(self.weights.shape[0])

    def of_unit_features(self, middle: Real, exponents: Real) -> Affine:
        """The same map of x' = (x − middle)·2^exponents."""
        return Affine(self.weights * np.exp2(-exponents), self.bias + self.weights @ middle)

    @property
    def reach(self) -> float:
        """The largest |y| for features in [−1, 1]."""
        return float(np.max(np.abs(self.weights).sum(axis=1) + np.abs(self.bias), initial=0.0))


def is_affine(graph: Graph) -> bool:
    """Whether every step is linear."""
    return all(isinstance(n.operation, Linear) or type(n.operation).__name__ in SUMS for n in graph.nodes)


def affine(graph: Graph) -> Affine:
    """The map that a graph of linear steps is, found by running it on zero and on the unit vectors."""
    if not is_affine(graph):
        raise LatticeError("model_unsupported", "This packing takes linear models; the graph has steps that are not.")
    features = prod(graph.input_shape)
    bias = graph.run(np.zeros((1, features))).ravel()
    columns = [graph.run(block).reshape(len(block), -1) - bias for block in _unit_vectors(features)]
    weights = np.concatenate(columns).T
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise LatticeError("model_unsupported", "A weight of the model is infinite or not a number.")
    return Affine(np.ascontiguousarray(weights), bias)


def _unit_vectors(features: int) -> list[Real]:
    step = 1024
    return [np.eye(min(step, features - start), features, start) for start in range(0, features, step)]
