"""Grids: how tensors of shape (channels, height, width) are cut into planes that all lie on one small grid.

A convolution of stride 2 reads every second pixel. If its input is stored as four planes (even and odd rows and
columns), each on the grid of the output, then the convolution is only shifts of planes, with no gaps. So a tensor is
cut by the product of all strides that still come after it, and a whole chain of convolutions shares one grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lattice.fhe.compiler.graph import Graph, Shape
from lattice.fhe.compiler.operations import Indices, Sparse
from lattice.fhe.compiler.packing.layout import power_of_two


@dataclass(frozen=True)
class Grid:
    """Planes of one tensor: plane (channel, h mod cut, w mod cut) holds its pixels at (h div cut)·pitch + w div cut."""

    shape: Shape
    cut: tuple[int, int]
    rows: int
    pitch: int
    block: int
    """Slots of one plane."""
    origin: int = 0
    """Where the first pixel lies in the plane, so that taps read only forward."""

    @property
    def planes(self) -> int:
        """How many planes there are."""
        return self.shape[0] * self.cut[0] * self.cut[1]

    @property
    def places(self) -> Indices:
        """For each entry of the tensor its slot, planes one after the other."""
        c, h, w = np.indices(self.shape)
        plane = (c * self.cut[0] + h % self.cut[0]) * self.cut[1] + w % self.cut[1]
        inside = (h // self.cut[0]) * self.pitch + w // self.cut[1] + self.origin
        return np.asarray(plane * self.block + inside, dtype=np.int64).ravel()

    @property
    def index(self) -> Indices:
        """`[planes · block]`: the entry in each slot, −1 for none."""
        index = np.full(self.planes * self.block, -1, dtype=np.int64)
        index[self.places] = np.arange(len(self.places))
        return index


def grids(graph: Graph, matrices: Mapping[str, Sparse]) -> dict[str, Grid]:
    """A grid for every tensor of three axes, by the name of its value."""
    shapes = graph.shapes()
    cuts = _cuts(graph, shapes, matrices)
    if not cuts:
        return {}
    rows = max(-(-shapes[name][1] // cut[0]) for name, cut in cuts.items())
    pitch = max(-(-shapes[name][2] // cut[1]) for name, cut in cuts.items())
    wide = power_of_two(pitch)
    if power_of_two(rows * wide) == power_of_two(rows * pitch):
        pitch = wide
    block = power_of_two(rows * pitch)
    flat = {name: Grid(shapes[name], cut, rows, pitch, block) for name, cut in cuts.items()}
    return _with_origins(graph, matrices, flat)


def tight(*together: Grid) -> list[Grid]:
    """The same planes with no slot between them, on one grid: for layers that read planes without moving them."""
    rows, pitch = (max(-(-g.shape[axis + 1] // g.cut[axis]) for g in together) for axis in (0, 1))
    return [Grid(g.shape, g.cut, rows, pitch, rows * pitch) for g in together]


def _cuts(graph: Graph, shapes: Mapping[str, Shape], matrices: Mapping[str, Sparse]) -> dict[str, tuple[int, int]]:
    """From the output backwards: a layer's input is cut by its stride times the cut of its output."""
    cuts: dict[str, tuple[int, int]] = {}
    for node in reversed(graph.nodes):
        out = cuts.get(node.name, (1, 1))
        if len(shapes[node.name]) == 3:
            cuts[node.name] = out
        for name in node.inputs:
            if len(shapes[name]) != 3:
                continue
            down, across = (1, 1)
            if node.name in matrices:
                moved = len(shapes[node.name]) == 3
                down, across = strides(node.operation, shapes[name], shapes[node.name]) if moved else (1, 1)
            old = cuts.get(name, (1, 1))
            cuts[name] = (max(old[0], out[0] * down), max(old[1], out[1] * across))
    return cuts


def strides(operation: object, before: Shape, after: Shape) -> tuple[int, int]:
    """Of a convolution or pooling: as it says itself, or else judged by the shapes (a merged one keeps no stride)."""
    said = getattr(operation, "stride", None)
    if isinstance(said, tuple) and len(said) == 2:
        return int(said[0]), int(said[1])
    down, across = (max(1, round(before[axis] / after[axis])) for axis in (1, 2))
    return down, across


def _with_origins(graph: Graph, matrices: Mapping[str, Sparse], flat: dict[str, Grid]) -> dict[str, Grid]:
    """Pixels of the input of a layer lie as far into the plane as its taps reach back, where there is room."""
    origins = dict.fromkeys(flat, 0)
    for node in reversed(graph.nodes):
        for name in node.inputs:
            if name in flat and node.name in flat:
                back = _reach_back(matrices[node.name], flat[name], flat[node.name]) if node.name in matrices else 0
                origins[name] = max(origins[name], origins[node.name] + back)
    placed = {}
    for name, g in flat.items():
        room = g.block - 1 - int((g.places % g.block).max())
        placed[name] = Grid(g.shape, g.cut, g.rows, g.pitch, g.block, min(room, origins[name]))
    return placed


def _reach_back(sparse: Sparse, source: Grid, target: Grid) -> int:
    inside, outside = source.places % source.block, target.places % target.block
    if not len(sparse.rows):
        return 0
    return max(0, int((outside[sparse.rows] - inside[sparse.columns]).max()))
