"""Scaling and shifting entry by entry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lattice.fhe.compiler.graph import Real, Shape
from lattice.fhe.compiler.operations.sizes import aligned, broadcast, size
from lattice.fhe.compiler.operations.sparse import Sparse


@dataclass(frozen=True, eq=False)
class Affine:
    """scale·x + shift, both broadcast to the sample: a batch normalisation, a scaler, a constant added."""

    scale: Real
    shift: Real

    def shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        return broadcast(shape, self.scale.shape, self.shift.shape)

    def forward(self, *inputs: Real) -> Real:
        (x,) = inputs
        return aligned(x, max(self.scale.ndim, self.shift.ndim)) * self.scale + self.shift

    def matrix(self, shape: Shape) -> Sparse:
        out = self.shape(shape)
        scale = np.broadcast_to(self.scale, out).ravel().astype(np.float64)
        shift = np.broadcast_to(self.shift, out).ravel().astype(np.float64)
        columns = np.broadcast_to(np.arange(size(shape), dtype=np.int64).reshape(shape), out).ravel()
        rows = np.flatnonzero(scale).astype(np.int64)
        return Sparse(rows, columns[rows], scale[rows], shift, size(shape))
