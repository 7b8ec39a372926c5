"""The operations of a graph. Linear ones can be asked for their matrix, which is all that packing looks at."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.compiler.graph import Real, Shape

Indices = NDArray[np.int64]


class Sparse(NamedTuple):
    """out[rows[k]] += values[k]·in[columns[k]] + bias: a linear layer on flattened tensors, entries distinct."""

    rows: Indices
    columns: Indices
    values: Real
    bias: Real
    """`[outputs]`"""
    inputs: int

    @property
    def outputs(self) -> int:
        """How many outputs."""
        return len(self.bias)


@runtime_checkable
class Linear(Protocol):
    """An operation that is a matrix and a bias."""

    def matrix(self, shape: Shape) -> Sparse:
        """For one input of this shape, flattened in C order."""
        ...
