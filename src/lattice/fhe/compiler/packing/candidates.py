"""Ways to compute a linear layer in slots. Each is a guess that `linear.build` proves or refuses.

With S slots, blocks of B slots (the planes of a grid; B = 1 for dense layers) are what a layer moves about: block
x = slot div B. All families say for every block which output it helps to make and how far it looks.

- `fields` (any layer, any layout): a layout that repeats with 2^p blocks has copies; bits of the output's number may
  come from the copy (a bits: free), from the empty slots below an entry (l bits: product slot −r of a gap makes output
  r, so everything else stays zero), and from m bits of the block's own position, at bit t, with 2^m offsets. The other
  bits of the position are folded. t at the bottom and a = 0: every fold wraps, the result repeats and holds no junk.
- `gathered` (the first layer): the client lays out, for every output position, exactly the inputs which it needs, so
  that the layer is a full matrix at every position; w of them to a group of R blocks, repeated in a way that any E
  neighbours hold all w. E offsets, and a fold over the groups.
- `planes` (the first layer, if it is a convolution): one copy of a plane for each output channel, in one group for each
  plane; offsets are the taps; a fold over the groups. Planes may be sent more than once, shifted, to need fewer taps.
- `toward` (any layer): the result in a given layout, by all offsets that occur: how two branches come to one layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np

from lattice.fhe.compiler.circuit import ZERO, Slots
from lattice.fhe.compiler.operations import Indices
from lattice.fhe.compiler.packing.geometry import Grid, tight
from lattice.fhe.compiler.packing.layout import Layout, in_order, power_of_two
from lattice.fhe.compiler.packing.linear import Entries, Offset, Scheme

MOST_PAIRS, MOST_OFFSETS = 1 << 25, 1 << 15


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear node, as the candidates see it."""

    name: str
    entries: Entries
    slots: int
    grids: tuple[tuple[Grid | None, Grid | None], ...] = ()
    """Of the input and of the output, in each family."""

    @property
    def outputs(self) -> int:
        """How many outputs."""
        return self.entries.sparse.outputs

    @property
    def inputs(self) -> int:
        """How many inputs."""
        return self.entries.sparse.inputs

    @property
    def is_spatial(self) -> bool:
        """Whether the result is a picture of more than one pixel."""
        return any(target is not None and target.shape[1] * target.shape[2] > 1 for _, target in self.grids)

    @cached_property
    def is_entrywise(self) -> bool:
        """Whether every output depends on the input of its own number only."""
        sparse = self.entries.sparse
        return sparse.inputs == sparse.outputs and bool((sparse.rows == sparse.columns).all())


class Field(NamedTuple):
    """The numbers of one scheme of the family `fields`, in bits; see above."""

    p: int
    gap: int
    low: int
    copies: int
    m: int
    t: int

    @property
    def folded(self) -> tuple[int, ...]:
        """The bits of a block's position that are summed over."""
        return (*range(self.gap, self.t), *range(self.t + self.m, self.p))


def middle(layer: Layer, layout: Layout) -> Iterator[Scheme]:
    """Every scheme for a layer whose input lies as it lies."""
    if layer.is_entrywise:
        yield toward(layer, layout, layout)
    for _, target in layer.grids:
        if target is not None and layout.block == target.block:
            yield from fields(layer, layout, target.index, target.block)
    yield from fields(layer, layout, np.arange(layer.outputs), 1)


def first(layer: Layer) -> Iterator[Scheme]:
    """Every scheme for a layer whose input the client lays out; `source` says how."""
    if not layer.is_spatial:
        yield from gathered(layer, None)
    for source, target in layer.grids:
        if target is not None:
            yield from gathered(layer, target)
        if source is not None and target is not None:
            yield from planes(layer, source, target)
            if target.spread == (1, 1):
                yield from planes(layer, *tight(source, target))
    for layout in plain(layer.inputs, layer.slots, [source for source, _ in layer.grids]):
        yield from middle(layer, layout)


def plain(entries: int, slots: int, grids: Iterable[Grid | None]) -> Iterator[Layout]:
    """Layouts of a tensor that assume nothing about what comes next."""
    for grid in grids:
        if grid is not None and 1 < grid.block <= slots:
            spread = in_order(grid.planes * grid.block, slots)
            index = np.append(grid.index, ZERO)
            yield Layout(tuple(index[array].astype(np.int32) for array in spread.slots), grid.block)
    yield in_order(entries, slots)


def fields(layer: Layer, layout: Layout, index: Indices, block: int) -> Iterator[Scheme]:
    """`index[o · block + j]` is the output in slot j of plane o."""
    if block > layer.slots:
        return
    blocks = layer.slots // block
    p = (max(layout.period, block) // block).bit_length() - 1
    k = blocks.bit_length() - 1
    gap = layout.gap[0].bit_length() - 1 if block == 1 else 0
    gap = min(gap, p)
    shifts = _shifts(layer, layout, index, block)
    bits = min(k, power_of_two(-(-len(index) // block)).bit_length() - 1)
    seen = set()
    for low in sorted({0, min(gap, bits)}):
        least, most = max(0, bits - low - (p - gap)), min(k - p, bits - low)
        for copies in {least, most} if least <= most else ():
            m = bits - low - copies
            for t in {gap, p - m}:
                field = Field(p, gap, low, copies, m, t)
                if field not in seen and len(shifts) << (m + low) <= MOST_OFFSETS:
                    seen.add(field)
                    yield _field(layer, layout, index, block, field, shifts)


def _shifts(layer: Layer, layout: Layout, index: Indices, block: int) -> list[int]:
    """How far, inside their blocks, an input lies behind an output that needs it."""
    if block == 1:
        return [0]
    inside = np.zeros(layer.outputs, dtype=np.int64)
    inside[index[index >= 0]] = np.flatnonzero(index >= 0) % block
    sparse = layer.entries.sorted
    apart = layout.places[sparse.columns] % block - inside[sparse.rows] + block
    return [int(shift) - block for shift in np.flatnonzero(np.bincount(apart, minlength=1))]


def _field(layer: Layer, layout: Layout, index: Indices, block: int, field: Field, shifts: list[int]) -> Scheme:
    blocks = layer.slots // block
    slot = np.arange(layer.slots, dtype=np.int64)
    x, inside = slot // block, slot % block
    gap = 1 << field.gap
    residue = layout.gap[1] % gap if block == 1 else 0
    x = (x - residue) % blocks
    below = -x % gap
    base = (x + below) % blocks
    valid = below < (1 << field.low)
    number = (base >> field.t) & ((1 << field.m) - 1)
    number |= ((base >> field.p) & ((1 << field.copies) - 1)) << field.m
    number = (number << field.low) | np.where(valid, below, 0)
    padded = np.append(index, -1)
    chunk = 1 << (field.low + field.m + field.copies)
    outputs = []
    for start in range(0, -(-len(index) // block), chunk):
        at = (number + start) * block + inside
        outputs.append(np.where(valid, padded[np.minimum(at, len(index))], -1).astype(np.int32))
    mask = sum(1 << bit for bit in field.folded)
    # A gap's product slots below one entry make different outputs: they are groups of their own.
    groups = ((base & ~np.int64(mask)) | below) * block + inside
    lows = min(1 << field.low, layer.outputs) if field.low else 1
    turns = [
        ((e << field.t) + low) * block + shift for e in range(1 << field.m) for low in range(lows) for shift in shifts
    ]
    offsets = tuple((i, turn) for turn in turns for i in range(len(layout.slots)))
    stages = tuple((block << bit,) for bit in field.folded)
    name = f"fields {'planes ' if block > 1 else ''}{tuple(field)}"
    return Scheme(name, layout, tuple(outputs), groups, offsets, stages, block)


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


def toward(layer: Layer, layout: Layout, target: Layout) -> Scheme:
    """The layer's result where `target` wants it (nothing where that has junk), with no fold."""
    outputs = tuple(np.maximum(array, ZERO) for array in target.slots)
    offsets: dict[Offset, None] = {}
    for array in outputs:
        offsets |= dict.fromkeys(_offsets(layer.entries, layout, array))
    groups = np.arange(layer.slots, dtype=np.int64)
    return Scheme("toward", layout, outputs, groups, tuple(offsets), (), target.block)


def _offsets(entries: Entries, layout: Layout, outputs: Slots) -> Iterator[Offset]:
    """Offsets that cover every (slot, entry), the most useful first; places of an input that repeats are all tried."""
    slots = layout.count
    used = np.flatnonzero(outputs >= 0)
    each = np.diff(entries.first)[outputs[used]]
    slot = np.repeat(used, each)
    entry = (
        np.repeat(entries.first[outputs[used]], each) + np.arange(len(slot)) - np.repeat(np.cumsum(each) - each, each)
    )
    column = entries.sorted.columns[entry]
    while len(slot):
        turn = (layout.places[column] - slot) % slots + layout.places[column] // slots * slots
        counts = np.bincount(turn)
        best = int(counts.argmax())
        i, step = divmod(best, slots)
        yield i, step
        rest = layout.slots[i][(slot + step) % slots] != column
        slot, column = slot[rest], column[rest]
