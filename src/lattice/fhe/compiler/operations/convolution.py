"""Convolutions over two axes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lattice.fhe.compiler.graph import Real, Shape
from lattice.fhe.compiler.operations.sizes import bounded, chunks, refusal, size
from lattice.fhe.compiler.operations.sparse import Sparse
from lattice.fhe.compiler.operations.windows import Pads, Pair, Windows


@dataclass(frozen=True, eq=False)
class Convolution:
    """Cross-correlation of `[channels, height, width]`, as ONNX and PyTorch mean it."""

    weight: Real
    """`[out, in/groups, kh, kw]`"""
    bias: Real
    """`[out]`"""
    stride: Pair = (1, 1)
    pads: Pads = (0, 0, 0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @cached_property
    def windows(self) -> Windows:
        """Where the taps lie."""
        return Windows(self.weight.shape[2:], self.stride, self.pads, self.dilation)

    def shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        out, per_group = self.weight.shape[:2]
        if len(shape) != 3 or shape[0] != per_group * self.groups or out % self.groups:
            raise refusal(
                f"A convolution from {per_group * self.groups} to {out} channels in {self.groups} groups is given a "
                f"tensor of shape {shape}."
            )
        return (out, *self.windows.grid(shape[1:]))

    def forward(self, *inputs: Real) -> Real:
        (x,) = inputs
        shape = self.shape(x.shape[1:])
        out = np.empty((len(x), *shape))
        taps = self.weight[0].size * self.groups * shape[1] * shape[2] * 8
        for part in chunks(len(x), taps):
            out[part] = self._forward(x[part], shape)
        return out

    def _forward(self, x: Real, shape: Shape) -> Real:
        out, groups = shape[0], self.groups
        # [batch, groups, in/groups·taps, positions], so that the product comes out channels first.
        view = self.windows.view(x).transpose(0, 1, 4, 5, 2, 3)
        columns = view.reshape(len(x), groups, -1, shape[1] * shape[2])
        weight = self.weight.reshape(groups, out // groups, -1)
        return (weight @ columns).reshape(len(x), *shape) + self.bias[:, None, None]

    def matrix(self, shape: Shape) -> Sparse:
        channels, rows, columns = self.shape(shape)
        positions, grid = rows * columns, shape[1] * shape[2]
        per_group, each = self.weight.shape[1], channels // self.groups
        places = self.windows.entries(shape[1:]).reshape(positions, -1)
        weight = self.weight.reshape(channels, per_group, -1)
        position, tap = np.nonzero(places >= 0)
        out, channel = np.divmod(np.arange(channels * per_group, dtype=np.int64), per_group)
        bounded(len(out) * len(position), "The matrix of a convolution")
        values = weight[out[:, None], channel[:, None], tap]
        source = (out // each) * per_group + channel
        rows_of = out[:, None] * positions + position
        columns_of = source[:, None] * grid + places[position, tap]
        kept = values != 0
        bias = np.repeat(self.bias.astype(np.float64), positions)
        return Sparse(rows_of[kept], columns_of[kept], values[kept].astype(np.float64), bias, size(shape))
