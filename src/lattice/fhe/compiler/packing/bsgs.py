"""Baby and giant steps for a set of offsets, the price of a layer, and the circuit step that comes out.

The price is in transforms of one limb, as in `circuits.matrix`, so that a plan does not depend on a machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lattice.fhe.circuits.matrix import NTT, PRODUCT, Limbs
from lattice.fhe.compiler.circuit import Matrix, Real, Rotate, Stages, Step
from lattice.fhe.compiler.operations import Indices
from lattice.fhe.compiler.packing.linear import Built

KEPT = 12
"""Splits kept for a layer."""
TOGETHER = (2, 3)
"""Stages of a fold that are tried as one."""


class Split(NamedTuple):
    """Every offset as giant + turn + baby: turn + baby in [−phase, width − phase), baby a remainder modulo `inner`.

    With inner = width there are no turns, and one decomposition serves all babies. Otherwise the input is rotated by
    each turn before, as a ciphertext of its own: a little slower, and far fewer keys.
    """

    width: int
    phase: int
    inner: int
    babies: tuple[int, ...]
    turns: tuple[int, ...]
    giants: tuple[int, ...]
    fold: Stages
    time: float
    rotations: int

    @property
    def steps(self) -> frozenset[int]:
        """The rotations that need keys, some perhaps negative."""
        folds = (step for stage in self.fold for step in stage)
        return frozenset((*self.babies, *self.turns, *self.giants, *folds)) - {0}

    def parts(self, offset: int, slots: int) -> tuple[int, int, int]:
        """Giant, turn and baby of an offset."""
        small = (offset + self.phase) % self.width
        baby = small % self.inner - self.phase if self.inner == self.width else small % self.inner
        turn = 0 if self.inner == self.width else small - baby - self.phase
        return (offset - turn - baby) % slots, turn, baby


def key_cost(limbs: Limbs) -> float:
    """The size of a key, in polynomials of one limb."""
    return float(limbs.digits * (limbs.q + limbs.special))


def splits(built: Built, limbs: Limbs, key_price: float) -> list[Split]:
    """The best splits, cheapest first, where a distinct rotation costs `key_price` for each limb of its key."""
    found: dict[frozenset[int], Split] = {}
    parts = [np.array(offsets, dtype=np.int64).reshape(-1, 2).T for offsets in built.used]
    for width, phase, inner in _widths(np.concatenate([offsets for _, offsets in parts])):
        split = _split(built, parts, (width, phase, inner), limbs)
        if split.steps not in found or split.time < found[split.steps].time:
            found[split.steps] = split
    price = key_price * key_cost(limbs)

    def rank(split: Split) -> tuple[float, int]:
        return split.time + price * len(split.steps), split.width

    best = sorted(found.values(), key=rank)[:KEPT]
    wider = [
        _wider(split, len(parts), limbs, together)
        for split in best
        for together in TOGETHER
        if len(split.fold) >= together
    ]
    return sorted([*best, *wider], key=rank)


def _wider(split: Split, outs: int, limbs: Limbs, together: int) -> Split:
    """Several stages of a fold in one: more keys, fewer decompositions and divisions."""
    stages: list[tuple[int, ...]] = []
    for at in range(0, len(split.fold), together):
        own = split.fold[at : at + together]
        if any(len(stage) > 1 for stage in own):
            stages += own
            continue
        sums = [sum(step for bit, (step,) in enumerate(own) if k >> bit & 1) for k in range(1, 1 << len(own))]
        stages.append(tuple(sums))
    time = split.time + outs * (_fold_time(tuple(stages), limbs) - _fold_time(split.fold, limbs))
    rotations = split.rotations + outs * (sum(map(len, stages)) - len(split.fold))
    return split._replace(fold=tuple(stages), time=time, rotations=rotations)


def _fold_time(stages: Stages, limbs: Limbs) -> float:
    wide = limbs.q + limbs.special
    gadget = 2 * limbs.digits * wide * PRODUCT
    return sum((limbs.digits + 2) * wide * NTT + len(stage) * gadget for stage in stages)


def _widths(offsets: Indices) -> Iterator[tuple[int, int, int]]:
    """(width, phase, inner) to try: every small width, then powers of two and three times those; powers inside."""
    low, high = int(offsets.min()), int(offsets.max())
    unit = int(np.gcd.reduce(offsets)) or 1
    span = (high - low) // unit + 1
    round_ = {unit * k << bit for bit in range(span.bit_length() + 1) for k in (1, 3) if k << bit <= 2 * span}
    round_ |= {1 << bit for bit in range((span * unit).bit_length() + 1) if 1 << bit >= unit}
    # Odd widths pay only where offsets follow each other closely, and never far from the square root of their number.
    close = len(np.unique(offsets)) * 4 >= span
    every = round_ | ({unit * k for k in range(1, min(span, int(4 * span**0.5)) + 1)} if close else set())
    phases = {0} if low >= 0 else {0, -low}
    for width in sorted(every):
        for phase in phases if low >= 0 else phases | {width // 2}:
            yield width, phase, width
    for width in sorted(round_):
        for inner in sorted(round_):
            if inner < width and width % inner == 0:
                yield from ((width, phase, inner) for phase in phases)


def _split(built: Built, parts: list[Indices], shape: tuple[int, int, int], limbs: Limbs) -> Split:
    slots = built.scheme.source.count
    width, phase, inner = shape
    inputs = np.concatenate([part[0] for part in parts])
    offsets = np.concatenate([part[1] for part in parts])
    small = (offsets + phase) % width
    baby = small % inner if inner < width else small - phase
    turn = small - baby - phase
    rotated = np.unique((inputs << 32) + turn + phase)  # (input, turn)
    babies = np.unique(((inputs << 32) + turn + phase << 24) + baby + phase)
    moved = babies & 0xFFFFFF != phase
    giants = [np.unique((part[1] + phase) // width * width % slots) for part in parts]
    turned = rotated[rotated & 0xFFFFFFFF != phase]
    jumps = sum(int(np.count_nonzero(each)) for each in giants)
    counts = (len(np.unique(babies[moved] >> 24)), int(np.count_nonzero(moved)), jumps, len(turned))
    folds = sum(map(len, built.scheme.fold)) * len(parts)
    return Split(
        width,
        phase,
        inner,
        tuple(sorted(set(np.unique(baby).tolist()), key=lambda step: (abs(step), step))),
        tuple(np.unique(turn).tolist()),
        tuple(np.unique(np.concatenate(giants)).tolist()),
        built.scheme.fold,
        _time(limbs, counts, built),
        counts[1] + counts[2] + counts[3] + folds,
    )


def _time(limbs: Limbs, counts: tuple[int, int, int, int], built: Built) -> float:
    sources, babies, jumps, turned = counts
    wide = limbs.q + limbs.special
    mod_up, mod_down = limbs.digits * wide * NTT, wide * NTT
    gadget = 2 * limbs.digits * wide * PRODUCT
    outs = len(built.used)
    hoisted = mod_up * sources + gadget * babies + jumps * (mod_up + mod_down + gadget)
    hoisted += turned * (mod_up + 2 * mod_down + gadget)
    products = built.diagonal_count * 2 * wide * PRODUCT + 2 * mod_down * outs
    return hoisted + products + outs * _fold_time(built.scheme.fold, limbs)


def steps(
    built: Built, split: Split, first: int, inputs: tuple[int, ...], bias: Real, layer: str
) -> tuple[list[Step], tuple[int, ...]]:
    """The circuit steps, whose values are numbered from `first`, and the results; `built` has its diagonals."""
    slots = built.scheme.source.count
    stored: list[Real] = []
    turned: dict[tuple[int, int], int] = {}
    terms = []
    baby_at = {baby: at for at, baby in enumerate(split.babies)}
    for offsets, diagonals in zip(built.used, built.diagonals, strict=True):
        groups: dict[int, list[tuple[int, int, int]]] = {giant: [] for giant in split.giants}
        for (i, offset), diagonal in zip(offsets, diagonals, strict=True):
            giant, turn, baby = split.parts(offset, slots)
            source = turned.setdefault((i, turn), len(turned))
            groups[giant].append((source, baby_at[baby], len(stored)))
            stored.append(np.roll(diagonal, giant))
        terms.append(tuple(tuple(groups[giant]) for giant in split.giants))
    before: list[Step] = []
    values = []
    for i, turn in turned:
        values.append(first + len(before) if turn else inputs[i])
        if turn:
            before.append(Rotate(values[-1], inputs[i], turn % slots, layer=layer))
    outs = tuple(range(first + len(before), first + len(before) + len(terms)))
    shifts = np.stack([np.where(array >= 0, bias[np.maximum(array, 0)], 0.0) for array in built.layout.slots])
    matrix = Matrix(
        outs=outs,
        inputs=tuple(values),
        diagonals=np.array(stored).reshape(-1, slots),
        babies=tuple(baby % slots for baby in split.babies),
        giants=split.giants,
        terms=tuple(terms),
        fold=split.fold,
        bias=shifts if shifts.any() else None,
        layer=layer,
    )
    return [*before, matrix], outs
