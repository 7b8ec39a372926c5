"""Average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lattice.fhe.compiler.graph import Real, Shape
from lattice.fhe.compiler.operations.sizes import bounded, chunks, refusal, size
from lattice.fhe.compiler.operations.sparse import Sparse
from lattice.fhe.compiler.operations.windows import Pads, Pair, Windows


@dataclass(frozen=True, eq=False)
class AveragePool:
    """The mean of every window of `[channels, height, width]`."""

    kernel: Pair
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    include_pad: bool = False
    """Padding counts as zeros in the mean; otherwise it does not count."""
    ceil: bool = False

    @cached_property
    def windows(self) -> Windows:
        """Where the taps lie."""
        return Windows(self.kernel, self.stride, self.pads, self.dilation, self.ceil)

    def counts(self, grid: Shape) -> Real:
        """`[rows, columns]`: what each window's sum is divided by."""
        sides = []
        for axis in (0, 1):
            taps = self.windows.taps(grid[axis], axis)
            low, high = (-self.pads[axis], grid[axis] + self.pads[axis + 2]) if self.include_pad else (0, grid[axis])
            sides.append(((taps >= low) & (taps < high)).sum(axis=1))
        return np.asarray(np.maximum(1, np.multiply.outer(*sides)), dtype=np.float64)

    def shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if len(shape) != 3:
            raise refusal(f"Average pooling takes [channels, height, width] and is given a tensor of shape {shape}.")
        return (shape[0], *self.windows.grid(shape[1:]))

    def forward(self, *inputs: Real) -> Real:
        (x,) = inputs
        shape, divisor = self.shape(x.shape[1:]), self.counts(x.shape[2:])
        out = np.empty((len(x), *shape))
        for part in chunks(len(x), size(shape) * self.kernel[0] * self.kernel[1] * 8):
            out[part] = self.windows.view(x[part]).sum(axis=(4, 5)) / divisor
        return out

    def matrix(self, shape: Shape) -> Sparse:
        out = self.shape(shape)
        positions, grid = out[1] * out[2], shape[1] * shape[2]
        places = self.windows.entries(shape[1:]).reshape(positions, -1)
        position, tap = np.nonzero(places >= 0)
        bounded(shape[0] * len(position), "The matrix of a pooling")
        channel = np.arange(shape[0], dtype=np.int64)[:, None]
        rows = (channel * positions + position).ravel()
        columns = (channel * grid + places[position, tap]).ravel()
        values = np.tile(1 / self.counts(shape[1:]).ravel()[position], shape[0])
        return Sparse(rows, columns, values, np.zeros(size(out)), size(shape))
