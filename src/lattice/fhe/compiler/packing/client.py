"""Ways to compute the first layer, for which the client may put its input into the slots in any order and repeatedly.

- `gathered`: for every output position the client lays out exactly the inputs which it needs, so that the layer is a
  full matrix at every position; w of them to a group of R blocks, repeated in a way that any E neighbours hold all w.
  E offsets, and a fold over the groups. A dense layer has one position.
- `planes` (convolutions): one copy of a plane for each output channel, in one group for each plane; offsets are the
  taps; a fold over the groups. Planes may be sent more than once, shifted, to need fewer taps.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np

from lattice.fhe.compiler.circuit import ZERO
from lattice.fhe.compiler.operations import Indices
from lattice.fhe.compiler.packing.geometry import Grid
from lattice.fhe.compiler.packing.layer import Layer
from lattice.fhe.compiler.packing.layout import Layout, power_of_two
from lattice.fhe.compiler.packing.linear import Scheme

MOST_PAIRS = 1 << 25
"""Positions times inputs of the largest layer whose input is gathered."""


def gathered(layer: Layer, target: Grid | None) -> Iterator[Scheme]:
    """Blocks are all positions of one output channel; a dense layer has one position, and every output is a channel."""
    positions, inside, width = _positions(layer, target)
    if target is not None and (target.spread != (1, 1) or width & (width - 1)):
        return  # the channels of a plane are not blocks of their own
    block = 1 if target is None else target.block
    if layer.slots < width or layer.inputs * (int(positions.max(initial=0)) + 1) > MOST_PAIRS:
        return
    needed = _needed(layer, positions)
    channels = -(-layer.outputs // (int(positions.max()) + 1))
    blocks = layer.slots // width
    r = min(blocks, power_of_two(channels))
    shapes = []
    for bits in range((blocks // r).bit_length()):
        groups = 1 << bits
        texts = max(1, -(-needed.shape[1] // (groups * r)))
        each = -(-needed.shape[1] // (groups * texts))
        reach = -(-r // (r // each))
        shapes.append((texts, 100 * bits + 5 * reach + 90 * reach**0.5, groups, each, reach))
    for texts, _, groups, each, reach in sorted(shapes)[:3]:
        yield _gathered(layer, needed, inside, (width, block), (texts, groups, each, reach, r))


def _positions(layer: Layer, grid: Grid | None) -> tuple[Indices, Indices, int]:
    """For each output its position and where in a block that position lies; and the slots of a block."""
    if grid is None:
        nowhere = np.zeros(layer.outputs, dtype=np.int64)
        return nowhere, nowhere, 1
    width = grid.block * grid.cut[0] * grid.cut[1]
    number = np.arange(layer.outputs, dtype=np.int64)
    return number % (grid.shape[1] * grid.shape[2]), grid.places % width, width


def _needed(layer: Layer, positions: Indices) -> Indices:
    """`[positions, most inputs of one]`: the inputs on which any output at a position depends, then −1."""
    count = int(positions.max()) + 1
    flags = np.zeros((count, layer.inputs), dtype=bool)
    sparse = layer.entries.sorted
    flags[positions[sparse.rows], sparse.columns] = True
    each = flags.sum(axis=1)
    needed = np.full((count, int(each.max())), -1, dtype=np.int64)
    at, column = np.nonzero(flags)
    needed[at, np.arange(len(at)) - np.repeat(np.cumsum(each) - each, each)] = column
    return needed


def _gathered(
    layer: Layer, needed: Indices, inside: Indices, widths: tuple[int, int], numbers: tuple[int, int, int, int, int]
) -> Scheme:
    width, plane = widths
    texts, groups, each, reach, r = numbers
    slot = np.arange(layer.slots, dtype=np.int64)
    block = slot // width
    channel, group = block % r, (block // r) % groups
    # r blocks hold each // times the symbols 0 … each − 1: runs start at ⌊i·r/runs⌋, so none is longer than `reach`.
    runs = r // each
    starts = np.arange(runs) * r // runs
    symbol = np.arange(r) - starts[np.searchsorted(starts, np.arange(r), side="right") - 1]
    where = np.full(width, -1, dtype=np.int64)
    positions = len(needed)
    where[inside[:positions]] = np.arange(positions)
    position = where[slot % width]
    source = []
    for text in range(texts):
        view = (text * groups + group) * each + symbol[channel]
        fits = (symbol[channel] < each) & (view < needed.shape[1]) & (position >= 0)
        source.append(np.where(fits, needed[position, np.where(fits, view, 0)], ZERO).astype(np.int32))
    chunks = -(-layer.outputs // (positions * r))
    outputs = []
    for chunk in range(chunks):
        number = (chunk * r + channel) * positions + position
        outputs.append(np.where((position >= 0) & (number < layer.outputs), number, -1).astype(np.int32))
    stages = tuple((width * r << bit,) for bit in range(groups.bit_length() - 1))
    offsets = tuple((text, e * width) for e in range(reach) for text in range(texts))
    folded = (block // (r * groups) * r + channel) * width + slot % width
    name = f"gathered {(texts, groups, each, reach)}"
    return Scheme(name, Layout(tuple(source)), tuple(outputs), folded, offsets, stages, plane)


def planes(layer: Layer, source: Grid, target: Grid) -> Iterator[Scheme]:
    """Views (plane, shift) in groups; the taps that remain are a window of rows and columns."""
    if target.planes * target.block > layer.slots:
        return
    taps = _taps(layer, source, target)
    down = max(rows[1] - rows[0] for rows, _ in taps.values()) + 1
    across = max(columns[1] - columns[0] for _, columns in taps.values()) + 1
    priced = []
    for window in product(range(1, down + 1), range(1, across + 1)):
        views = _views(taps, window)
        reach = (window[0] - 1) * source.pitch + window[1]
        group = power_of_two(target.planes * target.block + reach)
        if group * power_of_two(len(views)) <= layer.slots:
            bits = power_of_two(len(views)).bit_length() - 1
            priced.append((100 * bits + 25 * window[0] * window[1], window))
    for _, window in sorted(priced)[:2]:
        yield _planes(layer, source, target, _views(taps, window), window)


Range = tuple[int, int]
Taps = dict[int, tuple[Range, Range]]


def _taps(layer: Layer, source: Grid, target: Grid) -> Taps:
    """For each input plane the least and greatest shift down and across."""
    sparse = layer.entries.sorted
    away, home = source.places[sparse.columns], target.places[sparse.rows]
    pitch = source.pitch
    apart = away % source.block - home % target.block
    across = (apart + pitch // 2) % pitch - pitch // 2
    down = (apart - across) // pitch
    plane = away // source.block
    found: Taps = {}
    for at in range(source.planes):
        own = plane == at
        if own.any():
            found[at] = (
                (int(down[own].min()), int(down[own].max())),
                (int(across[own].min()), int(across[own].max())),
            )
    return found


def _views(taps: Taps, window: tuple[int, int]) -> list[tuple[int, int, int]]:
    """(plane, shift down, shift across) such that windows from there cover all taps."""
    return [
        (plane, y, x)
        for plane, (rows, columns) in taps.items()
        for y in range(rows[0], rows[1] + 1, window[0])
        for x in range(columns[0], columns[1] + 1, window[1])
    ]


def _planes(
    layer: Layer, source: Grid, target: Grid, views: list[tuple[int, int, int]], window: tuple[int, int]
) -> Scheme:
    reach = (window[0] - 1) * source.pitch + window[1]
    size = power_of_two(target.planes * target.block + reach)
    groups = power_of_two(len(views))
    period = size * groups
    laid = np.full(period, ZERO, dtype=np.int32)
    place, pixels = source.places, np.arange(layer.inputs)
    for group, (plane, y, x) in enumerate(views):
        own = place // source.block == plane
        inside = place[own] % source.block - (y * source.pitch + x)
        for copy in range(target.planes):
            at = copy * target.block + inside
            fits = (inside >= 0) & (at < size)
            laid[group * size + at[fits]] = pixels[own][fits]
    slot = np.arange(layer.slots, dtype=np.int64)
    index = np.append(target.index, -1)
    outputs = index[np.minimum(slot % size, len(index) - 1)].astype(np.int32)
    turns = [y * source.pitch + x for y in range(window[0]) for x in range(window[1])]
    stages = tuple((size << bit,) for bit in range(groups.bit_length() - 1))
    block = target.block if not target.block & (target.block - 1) else 1
    return Scheme(
        f"planes {window} {len(views)}",
        Layout((laid[slot % period],)),
        (outputs,),
        slot // period * size + slot % size,
        tuple((0, turn) for turn in turns),
        stages,
        block,
    )
