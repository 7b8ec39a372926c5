"""Grids: how tensors of shape (channels, height, width) lie as planes that all have one small grid of slots.

A convolution of stride 2 reads every second pixel. There are two ways to keep its result dense. If its input is stored
as four planes (even and odd rows and columns), each on the grid of the output, the convolution only shifts planes: the
input is *cut*. Or the output stays on the grid of the input and four channels share a plane, each with its pixels in
every second row and column: the output is *spread*. Cutting is cheaper for the strided layer itself, spreading for the
layers of stride 1 before it. So a chain of layers may be cut down to any of its resolutions and spread from there on:
each choice of that resolution is a family of grids, in which every tensor of the chain has its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lattice.fhe.compiler.graph import Graph, Shape
from lattice.fhe.compiler.operations import Indices, Sparse
from lattice.fhe.compiler.operations.windows import Pair
from lattice.fhe.compiler.packing.layout import power_of_two


@dataclass(frozen=True)
class Grid:
    """Plane (channel div spread², h mod cut, w mod cut) holds its pixels at row (h div cut)·spread + u, and column
    likewise with v, where (u, v) are the digits of the channel modulo spread²."""

    shape: Shape
    cut: Pair
    spread: Pair
    rows: int
    pitch: int
    """Slots from a row to the next."""
    block: int
    """Slots of one plane."""
    origin: int = 0
    """Where the first pixel lies in the plane, so that taps read only forward."""

    @property
    def planes(self) -> int:
        """How many planes there are."""
        return -(-self.shape[0] // (self.spread[0] * self.spread[1])) * self.cut[0] * self.cut[1]

    @cached_property
    def places(self) -> Indices:
        """For each entry of the tensor its slot, planes one after the other."""
        c, h, w = np.indices(self.shape)
        group, digits = np.divmod(c, self.spread[0] * self.spread[1])
        u, v = np.divmod(digits, self.spread[1])
        plane = (group * self.cut[0] + h % self.cut[0]) * self.cut[1] + w % self.cut[1]
        row, column = (h // self.cut[0]) * self.spread[0] + u, (w // self.cut[1]) * self.spread[1] + v
        return np.asarray(plane * self.block + row * self.pitch + column + self.origin, dtype=np.int64).ravel()

    @cached_property
    def index(self) -> Indices:
        """`[planes · block]`: the entry in each slot, −1 for none."""
        index = np.full(self.planes * self.block, -1, dtype=np.int64)
        index[self.places] = np.arange(len(self.places))
        return index


def families(graph: Graph, matrices: Mapping[str, Sparse]) -> list[dict[str, Grid]]:
    """For each resolution of the graph, a grid for every tensor of three axes, by the name of its value."""
    shapes = graph.shapes()
    cuts = _cuts(graph, shapes, matrices)
    return [
        _family(graph, matrices, {name: shapes[name] for name in cuts}, cuts, base)
        for base in sorted(set(cuts.values()))
    ]


def tight(*together: Grid) -> list[Grid]:
    """The same planes with no slot between them, on one grid: for layers that read planes without moving them."""
    rows, pitch = (max(-(-g.shape[axis + 1] // g.cut[axis]) for g in together) for axis in (0, 1))
    return [Grid(g.shape, g.cut, (1, 1), rows, pitch, rows * pitch) for g in together]


def _family(
    graph: Graph, matrices: Mapping[str, Sparse], shapes: Mapping[str, Shape], cuts: Mapping[str, Pair], base: Pair
) -> dict[str, Grid]:
    """Cut down to the resolution that is still to be divided by `base`, and spread from there."""
    cut = {name: _ratio(own, base) for name, own in cuts.items()}
    spread = {name: _ratio(base, own) for name, own in cuts.items()}
    rows, pitch = (
        max(-(-shapes[name][axis + 1] // cut[name][axis]) * spread[name][axis] for name in cuts) for axis in (0, 1)
    )
    wide = power_of_two(pitch)
    if power_of_two(rows * wide) == power_of_two(rows * pitch):
        pitch = wide
    block = power_of_two(rows * pitch)
    flat = {name: Grid(shapes[name], cut[name], spread[name], rows, pitch, block) for name in cuts}
    return _with_origins(graph, matrices, flat)


def _ratio(above: Pair, below: Pair) -> Pair:
    return max(1, above[0] // below[0]), max(1, above[1] // below[1])


def _cuts(graph: Graph, shapes: Mapping[str, Shape], matrices: Mapping[str, Sparse]) -> dict[str, Pair]:
    """From the output backwards: a layer's input is cut by its stride times the cut of its output."""
    cuts: dict[str, Pair] = {}
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


def strides(operation: object, before: Shape, after: Shape) -> Pair:
    """Of a convolution or pooling: as it says itself, or else judged by the shapes (a merged one keeps no stride).
    One that leaves a single pixel takes no steps."""
    if after[1] * after[2] == 1:
        return 1, 1
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
        placed[name] = replace(g, origin=min(room, origins[name]))
    return placed


def _reach_back(sparse: Sparse, source: Grid, target: Grid) -> int:
    inside, outside = source.places % source.block, target.places % target.block
    if not len(sparse.rows):
        return 0
    return max(0, int((outside[sparse.rows] - inside[sparse.columns]).max()))
