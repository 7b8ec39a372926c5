"""Graphs that are one affine map, y = W·x + b: linear and logistic regression, linear SVMs, scalers or PCA before."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.graph import Graph, Real
from lattice.fhe.compiler.operations import Linear

MAX_WEIGHTS = 1 << 28
PIECE = 1 << 22
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
    """The map that a graph of linear steps is."""
    if not is_affine(graph):
        raise LatticeError("model_unsupported", "This packing takes linear models; the graph has steps that are not.")
    features, outputs = prod(graph.input_shape), prod(graph.output_shape)
    if not 0 < features * outputs <= MAX_WEIGHTS:
        raise LatticeError(
            "model_unsupported", f"{features} features and {outputs} outputs; at most {MAX_WEIGHTS} weights are taken."
        )
    bias = graph.run(np.zeros((1, *graph.input_shape))).ravel()
    single = graph.nodes[0].operation if len(graph.nodes) == 1 else None
    if isinstance(single, Linear):
        weights = single.matrix(graph.input_shape).dense()
    else:
        columns = [graph.run(block).reshape(len(block), -1) - bias for block in _unit_vectors(features)]
        weights = np.ascontiguousarray(np.concatenate(columns).T)
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        raise LatticeError("model_unsupported", "A weight of the model is infinite or not a number.")
    return Affine(weights, bias)


def _unit_vectors(features: int) -> list[Real]:
    """In pieces, of which none is large."""
    step = max(1, PIECE // features)
    return [np.eye(min(step, features - start), features, start) for start in range(0, features, step)]
