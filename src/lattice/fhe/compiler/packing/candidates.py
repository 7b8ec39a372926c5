"""Ways to compute a linear layer in slots. Each is a guess that `linear.build` proves or refuses.

With S slots, blocks of B slots (the planes of a grid; B = 1 for dense layers) are what a layer moves about: block
x = slot div B. All families say for every block which output it helps to make and how far it looks.

- `fields` (any layer, any layout): a layout that repeats with 2^p blocks has copies; bits of the output's number may
  come from the copy (a bits: free), from the empty slots below an entry (l bits: product slot −r of a gap makes output
  r, so everything else stays zero), and from m bits of the block's own position, at bit t, with 2^m offsets. The other
  bits of the position are folded. t at the bottom and a = 0: every fold wraps, the result repeats and holds no junk.
- `client.gathered`, `client.planes` (the first layer): the client lays out its input as the layer wants it.
- `toward` (any layer): the result in a given layout, by all offsets that occur: how two branches come to one layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from lattice.fhe.compiler.circuit import ZERO, Slots
from lattice.fhe.compiler.operations import Indices
from lattice.fhe.compiler.packing.client import gathered, planes
from lattice.fhe.compiler.packing.geometry import Grid, tight
from lattice.fhe.compiler.packing.layer import Layer
from lattice.fhe.compiler.packing.layout import Layout, in_order, power_of_two
from lattice.fhe.compiler.packing.linear import Entries, Offset, Scheme

MOST_OFFSETS = 1 << 15
"""Offsets of the largest scheme that is tried."""


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
    clean = field.t == field.gap and (not field.copies or not field.folded)
    return Scheme(name, layout, tuple(outputs), groups, offsets, stages, block, clean)


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
