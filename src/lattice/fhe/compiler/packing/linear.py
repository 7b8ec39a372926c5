"""The general builder of a linear layer in slots: rotate, multiply by diagonals, add, fold.

A `Scheme` says which offsets there are and to which output each product slot contributes; `build` finds out which
entry of the matrix every diagonal holds in every slot (each entry once for every group of slots that are folded into
one), and then *proves* what lies in each slot of the result: every entry of the matrix has a random 64-bit number,
products carry the sums of the numbers of their entries, and after the fold a slot holds output r only if it carries
exactly the sum of row r. So a scheme can be wrong only by being refused, never by computing something else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.circuit import JUNK, ZERO, Real, Slots, Stages
from lattice.fhe.compiler.operations import Indices, Sparse
from lattice.fhe.compiler.packing.layout import Layout

TABLE = 1 << 25
"""Entries of the largest table at a time (int32): layers are worked through in chunks of rows."""
Offset = tuple[int, int]
"""(input, rotation): which ciphertext a diagonal reads, and how far from its own slot."""
Numbers = NDArray[np.uint64]


class Scheme(NamedTuple):
    """How a layer is to be computed, before anyone knows whether that works."""

    name: str
    source: Layout
    outputs: tuple[Slots, ...]
    """For each result, for each slot, the output to which the product in it contributes, or −1."""
    groups: Indices
    """`[slots]`: products in slots of one group are folded into one."""
    offsets: tuple[Offset, ...]
    """In order of preference: an entry that several could hold goes to the first."""
    fold: Stages = ()
    block: int = 1
    """Of the result's layout."""
    clean: bool = True
    """Whether it is meant to leave no junk."""


class Built(NamedTuple):
    """What became of a scheme: the diagonals that hold anything, and where the outputs lie."""

    scheme: Scheme
    used: tuple[tuple[Offset, ...], ...]
    """For each result its offsets."""
    layout: Layout
    diagonals: tuple[Real, ...]
    """For each result `[len(used), slots]`; empty if only the plan was asked for."""

    @property
    def diagonal_count(self) -> int:
        """How many diagonals there are."""
        return sum(map(len, self.used))


@dataclass(frozen=True, eq=False)
class Entries:
    """A layer's matrix, ready for building: no zeros but one in each empty row, sorted by row, numbered at random."""

    sparse: Sparse

    @cached_property
    def sorted(self) -> Sparse:
        """Sorted; a row of zeros has one explicit zero, so that its output (the bias) gets a place too."""
        s = self.sparse
        kept = s.values != 0
        empty = np.setdiff1d(np.arange(s.outputs, dtype=np.int64), s.rows[kept])
        rows = np.concatenate([s.rows[kept], empty])
        columns = np.concatenate([s.columns[kept], np.zeros_like(empty)])
        values = np.concatenate([s.values[kept], np.zeros(len(empty))])
        return Sparse(rows, columns, values, s.bias, s.inputs).sorted()

    @cached_property
    def first(self) -> Indices:
        """`[outputs + 1]`: where each row starts."""
        return np.searchsorted(self.sorted.rows, np.arange(self.sparse.outputs + 1))

    @cached_property
    def numbers(self) -> Numbers:
        """One for each entry; fixed, so that compiling twice gives the same program."""
        random = np.random.Generator(np.random.PCG64(20240463))
        return random.integers(1, 1 << 64, len(self.sorted.rows), dtype=np.uint64, endpoint=False)

    @cached_property
    def totals(self) -> Numbers:
        """The sum of every row's numbers, modulo 2^64."""
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(self.numbers, dtype=np.uint64)])
        totals: Numbers = sums[self.first[1:]] - sums[self.first[:-1]]
        return totals

    def table(self, start: int, stop: int) -> NDArray[np.int32]:
        """`[rows, inputs + 1]`: the entry at each place of some rows, −1 for none; the last column stands for empty."""
        if (self.sparse.outputs + 1) * (self.sparse.inputs + 1) <= TABLE:
            return self._whole[start:stop]
        return self._table(start, stop)

    @cached_property
    def _whole(self) -> NDArray[np.int32]:
        return self._table(0, self.sparse.outputs)

    def _table(self, start: int, stop: int) -> NDArray[np.int32]:
        part = slice(int(self.first[start]), int(self.first[stop]))
        table = np.full((stop - start, self.sparse.inputs + 1), -1, dtype=np.int32)
        table[self.sorted.rows[part] - start, self.sorted.columns[part]] = np.arange(part.start, part.stop)
        return table


def build(entries: Entries, scheme: Scheme, *, values: bool = True) -> Built:
    """The diagonals, or `packing_failed` if some output does not come out whole anywhere."""
    results = [_build_one(entries, scheme, outputs, values) for outputs in scheme.outputs]
    found = np.unique(np.concatenate([slots[slots >= 0] for _, slots, _ in results]))
    if len(found) != entries.sparse.outputs:
        raise LatticeError(
            "packing_failed",
            f"Scheme {scheme.name!r} gives {len(found)} of {entries.sparse.outputs} outputs.",
        )
    layout = Layout(tuple(slots for _, slots, _ in results), scheme.block)
    return Built(scheme, tuple(used for used, _, _ in results), layout, tuple(d for _, _, d in results))


def _build_one(
    entries: Entries, scheme: Scheme, outputs: Slots, values: bool
) -> tuple[tuple[Offset, ...], Slots, Real]:
    slots = scheme.source.count
    carried = np.zeros(slots, dtype=np.uint64)
    busy = np.zeros(slots, dtype=bool)
    used = np.zeros(len(scheme.offsets), dtype=bool)
    diagonals: dict[int, Real] = {}
    for at, where, which in _assignments(entries, scheme, outputs):
        carried[where] += entries.numbers[which]
        busy[where] = True
        used[at] = True
        if values:
            diagonal = diagonals.setdefault(at, np.zeros(slots))
            diagonal[where] = entries.sorted.values[which]
    layout = _layout(entries, carried, busy, scheme.fold)
    chosen = np.flatnonzero(used)
    rows = [diagonals[int(at)] for at in chosen] if values else []
    return tuple(scheme.offsets[at] for at in chosen), layout, np.array(rows).reshape(-1, slots)


def _assignments(entries: Entries, scheme: Scheme, outputs: Slots) -> Iterator[tuple[int, Indices, Indices]]:
    """(offset's position, slots, entries that the diagonal holds there)."""
    inputs = entries.sparse.inputs
    sources = [np.where(array >= 0, array, inputs).astype(np.int64) for array in scheme.source.slots]
    for start, stop, slots in _chunks(entries, outputs):
        table = entries.table(start, stop).ravel()
        row = (outputs[slots] - start) * np.int64(inputs + 1)
        group = np.unique(scheme.groups[slots] * np.int64(stop - start) + (outputs[slots] - start), return_inverse=True)
        base = group[1].astype(np.int64) * inputs
        owner = np.full(len(group[0]) * inputs, -1, dtype=np.int32)
        for at, (i, turn) in enumerate(scheme.offsets):
            read = sources[i][(slots + turn) % len(outputs)]
            which = table[row + read]
            here = np.flatnonzero(which >= 0)
            key = base[here] + read[here]
            here, key = here[owner[key] < 0], key[owner[key] < 0]
            owner[key] = here  # two slots of a group that read one input: the last one keeps it
            here = here[owner[key] == here]
            if len(here):
                yield at, slots[here], which[here]


def _chunks(entries: Entries, outputs: Slots) -> Iterator[tuple[int, int, Indices]]:
    """Ranges of rows with the slots that contribute to them, such that tables stay small."""
    count = np.bincount(outputs[outputs >= 0], minlength=entries.sparse.outputs) + 1
    reach = np.cumsum(count) * max(1, entries.sparse.inputs)
    start = 0
    while start < len(count):
        done = int(reach[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(reach, done + TABLE, side="right")))
        slots = np.flatnonzero((outputs >= start) & (outputs < stop))
        if len(slots):
            yield start, stop, slots
        start = stop


def _layout(entries: Entries, carried: Numbers, busy: NDArray[np.bool_], stages: Stages) -> Slots:
    """What each slot holds after the fold, judged by the numbers that it carries."""
    reached = busy.astype(np.int64)
    for stage in stages:
        carried = carried + sum((np.roll(carried, -step) for step in stage), np.zeros_like(carried))
        reached = reached + sum(np.roll(reached, -step) for step in stage)
    order = np.argsort(entries.totals)
    at = np.minimum(np.searchsorted(entries.totals[order], carried), len(order) - 1)
    whole = entries.totals[order[at]] == carried
    return np.where(reached == 0, ZERO, np.where(whole, order[at], JUNK)).astype(np.int32)
