"""Sliding windows over a grid: what convolution and pooling share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lattice.fhe.compiler.graph import Real, Shape
from lattice.fhe.compiler.operations.sizes import refusal
from lattice.fhe.compiler.operations.sparse import Indices

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
"""Rows above, columns left, rows below, columns right: ONNX's order."""


@dataclass(frozen=True)
class Windows:
    """Windows of `kernel` taps, `dilation` apart, `stride` from one to the next, over a grid padded with `pads`."""

    kernel: Pair
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    ceil: bool = False
    """A last window that starts inside the padded grid and ends beyond it counts too."""

    def span(self, axis: int) -> int:
        """From the first tap to the last, both included."""
        return (self.kernel[axis] - 1) * self.dilation[axis] + 1

    def grid(self, grid: Shape) -> Pair:
        """How many windows there are down and across."""
        if min(*self.kernel, *self.stride, *self.dilation) < 1 or min(self.pads) < 0:
            raise refusal("Kernel, stride and dilation of a window must be positive and its padding not negative.")
        return self._count(grid[0], 0), self._count(grid[1], 1)

    def _count(self, length: int, axis: int) -> int:
        stride, before = self.stride[axis], self.pads[axis]
        room = length + before + self.pads[axis + 2] - self.span(axis)
        if room < 0:
            raise refusal(f"A window of {self.span(axis)} does not fit in a grid of {length} with its padding.")
        count = (-(-room // stride) if self.ceil else room // stride) + 1
        # As in ONNX, a window that would start in the padding behind the grid is dropped.
        return count - 1 if self.ceil and (count - 1) * stride >= length + before else count

    def taps(self, length: int, axis: int) -> Indices:
        """`[windows, kernel]`: the row (or column) of the grid under each tap, outside 0 … length − 1 in padding."""
        start = np.arange(self._count(length, axis), dtype=np.int64) * self.stride[axis] - self.pads[axis]
        return start[:, None] + np.arange(self.kernel[axis], dtype=np.int64) * self.dilation[axis]

    def entries(self, grid: Shape) -> Indices:
        """`[rows, columns, kh, kw]`: the flat place in the grid of every tap, −1 in padding."""
        height, width = grid
        down, across = self.taps(height, 0), self.taps(width, 1)
        inside = ((down >= 0) & (down < height))[:, None, :, None] & ((across >= 0) & (across < width))[None, :, None]
        return np.where(inside, down[:, None, :, None] * width + across[None, :, None, :], -1)

    def view(self, x: Real) -> Real:
        """`[batch, channels, rows, columns, kh, kw]` of `[batch, channels, height, width]`, zero-padded."""
        rows, columns = self.grid(x.shape[2:])
        reach = [(count - 1) * self.stride[axis] + self.span(axis) for axis, count in enumerate((rows, columns))]
        behind = [max(0, reach[axis] - x.shape[2 + axis] - self.pads[axis]) for axis in (0, 1)]
        padded = np.pad(x, ((0, 0), (0, 0), (self.pads[0], behind[0]), (self.pads[1], behind[1])))
        spans = np.lib.stride_tricks.sliding_window_view(padded, (self.span(0), self.span(1)), axis=(2, 3))
        rest = spans[..., :: self.dilation[0], :: self.dilation[1]]
        return rest[:, :, :: self.stride[0], :: self.stride[1]][:, :, :rows, :columns]
