"""Baby and giant steps for a set of offsets, the price of a layer, and the circuit step that comes out.

The price is in transforms of one limb, as in `circuits.matrix`, so that a plan does not depend on a machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lattice.fhe.circuits.matrix import NTT, PRODUCT, Limbs
from lattice.fhe.compiler.circuit import Matrix, Real, Stages
from lattice.fhe.compiler.operations import Indices
from lattice.fhe.compiler.packing.linear import Built

Turns = Indices

SMALL = 96
"""Widths of baby steps that are tried one by one, in units of the offsets' common divisor."""
KEPT = 10
"""Splits kept for a layer."""


class Split(NamedTuple):
    """Every offset as giant + baby: baby in [−phase, width − phase)."""

    width: int
    phase: int
    babies: tuple[int, ...]
    giants: tuple[int, ...]
    fold: Stages
    time: float
    rotations: int

    @property
    def steps(self) -> frozenset[int]:
        """The rotations that need keys, some perhaps negative."""
        return frozenset((*self.babies, *self.giants, *(step for stage in self.fold for step in stage))) - {0}


def splits(built: Built, limbs: Limbs, key_price: float) -> list[Split]:
    """The best splits, cheapest first, where every distinct rotation costs `key_price` beside its time."""
    found: dict[frozenset[int], Split] = {}
    parts = [np.array(offsets, dtype=np.int64).reshape(-1, 2).T for offsets in built.used]
    for width, phase in _widths(np.concatenate([turns for _, turns in parts])):
        split = _split(built, parts, width, phase, limbs)
        if split.steps not in found or split.time < found[split.steps].time:
            found[split.steps] = split
    return sorted(found.values(), key=lambda split: (split.time + key_price * len(split.steps), split.width))[:KEPT]


def _widths(turns: Turns) -> Iterator[tuple[int, int]]:
    """(width, phase) to try: every small one, then powers of two and three times those."""
    low, high = int(turns.min()), int(turns.max())
    unit = int(np.gcd.reduce(turns)) or 1
    span = (high - low) // unit + 1
    widths = {unit * k for k in range(1, min(span, SMALL) + 1)}
    widths |= {unit * k << bit for bit in range(span.bit_length() + 1) for k in (1, 3) if k << bit <= 2 * span}
    widths |= {1 << bit for bit in range((span * unit).bit_length() + 1)}
    for width in sorted(widths):
        yield width, 0
        if low < 0:
            yield width, width // 2
            yield width, -low


def _split(built: Built, parts: list[Turns], width: int, phase: int, limbs: Limbs) -> Split:
    slots = built.scheme.source.count
    babies = [(inputs << 32) + (turns + phase) % width - phase for inputs, turns in parts]
    together = np.unique(np.concatenate(babies))
    inputs = (together + phase) >> 32
    turned = together - (inputs << 32)
    giants = [np.unique((turns + phase) // width * width % slots) for _, turns in parts]
    moved = turned != 0
    sources = len(np.unique(inputs[moved]))
    jumps = sum(int(np.count_nonzero(each)) for each in giants)
    time = _time(limbs, sources, int(np.count_nonzero(moved)), jumps, built)
    folds = sum(map(len, built.scheme.fold)) * len(parts)
    steps = tuple(sorted(set(turned.tolist()), key=lambda step: (abs(step), step)))
    union = tuple(np.unique(np.concatenate(giants)).tolist())
    rotations = int(np.count_nonzero(moved)) + jumps + folds
    return Split(width, phase, steps, union, built.scheme.fold, time, rotations)


def _time(limbs: Limbs, sources: int, babies: int, jumps: int, built: Built) -> float:
    wide = limbs.q + limbs.special
    mod_up, mod_down = limbs.digits * wide * NTT, wide * NTT
    gadget = 2 * limbs.digits * wide * PRODUCT
    outs, stages = len(built.used), built.scheme.fold
    hoisted = mod_up * sources + gadget * babies + jumps * (mod_up + mod_down + gadget)
    products = built.count * 2 * wide * PRODUCT + 2 * mod_down * outs
    return hoisted + products + outs * sum(mod_up + 2 * mod_down + len(stage) * gadget for stage in stages)


def step(built: Built, split: Split, first: int, inputs: tuple[int, ...], bias: Real, layer: str) -> Matrix:
    """The circuit step whose results are numbered from `first`; `built` has its diagonals."""
    slots = built.scheme.source.count
    terms: list[tuple[tuple[tuple[int, int, int], ...], ...]] = []
    stored: list[Real] = []
    baby_at = {turn: at for at, turn in enumerate(split.babies)}
    for offsets, diagonals in zip(built.used, built.diagonals, strict=True):
        groups: dict[int, list[tuple[int, int, int]]] = {giant: [] for giant in split.giants}
        for (i, turn), diagonal in zip(offsets, diagonals, strict=True):
            baby = (turn + split.phase) % split.width - split.phase
            giant = (turn - baby) % slots
            groups[giant].append((i, baby_at[baby], len(stored)))
            stored.append(np.roll(diagonal, giant))
        terms.append(tuple(tuple(groups[giant]) for giant in split.giants))
    shifts = np.stack([np.where(array >= 0, bias[np.maximum(array, 0)], 0.0) for array in built.layout.slots])
    return Matrix(
        outs=tuple(range(first, first + len(terms))),
        inputs=inputs,
        diagonals=np.array(stored).reshape(-1, slots),
        babies=tuple(baby % slots for baby in split.babies),
        giants=split.giants,
        terms=tuple(terms),
        fold=split.fold,
        bias=shifts if shifts.any() else None,
        layer=layer,
    )
