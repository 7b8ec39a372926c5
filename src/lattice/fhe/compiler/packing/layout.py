"""Layouts: where the entries of one tensor lie in the slots of its ciphertexts, as explicit arrays.

Nothing about a layout is implied: repetition, gaps and grids are found by looking at the arrays, so every kind of
layer and every trick of a client is just an array, and a wrong one cannot pass the check of coverage in `linear`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lattice.fhe.compiler.circuit import JUNK, ZERO, Slots
from lattice.fhe.compiler.operations import Indices

FILLER = -3
"""In slots that held zero before a function that does not keep it: a known, small constant, the same in all of them."""


@dataclass(frozen=True, eq=False)
class Layout:
    """One tensor in the slots of one or more ciphertexts."""

    slots: tuple[Slots, ...]
    block: int = 1
    """Slots of one plane where the tensor lies on a grid of `geometry`, else 1."""
    filler: float = 0.0
    """No constant in a `FILLER` slot is larger."""

    @cached_property
    def key(self) -> bytes:
        """Equal for equal layouts."""
        digest = hashlib.blake2b(f"{self.block} {self.filler}".encode(), digest_size=16)
        for array in self.slots:
            digest.update(array.tobytes())
        return digest.digest()

    @property
    def count(self) -> int:
        """How many slots a ciphertext has."""
        return len(self.slots[0])

    @cached_property
    def period(self) -> int:
        """The least power of two with which every ciphertext repeats (what lies in empty slots aside)."""
        arrays = [np.maximum(array, ZERO) for array in self.slots]
        period = self.count
        while period > 1 and all(np.array_equal(a[: period // 2], a[period // 2 : period]) for a in arrays):
            period //= 2
        return period

    @cached_property
    def gap(self) -> tuple[int, int]:
        """(g, r): the greatest power of two such that entries lie only in slots ≡ r modulo g."""
        used = np.concatenate([np.flatnonzero(array >= 0) for array in self.slots])
        if not len(used):
            return 1, 0
        apart = int(np.bitwise_or.reduce(used ^ used[0]))
        gap = apart & -apart if apart else self.count
        return min(gap, self.count), int(used[0]) % gap

    @cached_property
    def has_junk(self) -> bool:
        """Whether any slot holds what is neither an entry nor zero."""
        return any(bool((array == JUNK).any()) for array in self.slots)

    @cached_property
    def places(self) -> Indices:
        """For each entry of the tensor a slot where it lies, counted through the ciphertexts; −1 for none."""
        joined = np.concatenate(self.slots)
        found = np.full(int(joined.max(initial=-1)) + 1, -1, dtype=np.int64)
        used = np.flatnonzero(joined >= 0)[::-1]
        found[joined[used]] = used
        return found

    def holds(self, entries: int) -> bool:
        """Whether every entry of a tensor of this size lies somewhere."""
        return len(self.places) == entries and bool((self.places >= 0).all())

    def relabelled(self, names: Indices) -> Layout:
        """The same slots of a tensor whose entry names[k] was entry k."""
        table = np.concatenate([names, [FILLER, JUNK, ZERO]]).astype(np.int32)  # −1 is the last, and so on
        return Layout(tuple(table[array] for array in self.slots), filler=self.filler)

    def filled(self, constant: float) -> Layout:
        """After a function that makes at most this constant of what filled empty slots before."""
        empty = {FILLER, ZERO} if constant else {FILLER}
        after = FILLER if constant else ZERO
        slots = tuple(np.where(np.isin(a, [*empty]), after, a).astype(np.int32) for a in self.slots)
        return Layout(slots, self.block, abs(constant))

    def cleaned(self) -> Layout:
        """With zeros wherever no entry lies."""
        return Layout(tuple(np.maximum(a, ZERO) for a in self.slots), self.block)

    def outside(self) -> tuple[Slots, ...]:
        """As circuits write it: a filler is junk to everybody else."""
        return tuple(np.where(a == FILLER, JUNK, a).astype(np.int32) for a in self.slots)


def joined(left: Layout, right: Layout, *, product: bool) -> Layout:
    """What a sum or a product of two tensors leaves in each slot."""
    slots = []
    for a, b in zip(left.slots, right.slots, strict=True):
        both = ((a == ZERO) | (a == FILLER)) & ((b == ZERO) | (b == FILLER))
        empty = (a == ZERO) | (b == ZERO) if product else (a == ZERO) & (b == ZERO)
        slots.append(np.where(empty, ZERO, np.where(both, FILLER, np.where(a == b, a, JUNK))).astype(np.int32))
    filler = left.filler * right.filler if product else left.filler + right.filler
    return Layout(tuple(slots), left.block if left.block == right.block else 1, filler)


def in_order(entries: int, slots: int) -> Layout:
    """Entries 0, 1, 2 … in a period of the next power of two, repeated; over several ciphertexts where one is small."""
    count = -(-entries // slots)
    period = min(slots, power_of_two(entries))
    index = np.arange(slots, dtype=np.int32) % period
    parts = [index + at * slots for at in range(count)]
    return Layout(tuple(np.where(part < entries, part, ZERO).astype(np.int32) for part in parts))


def power_of_two(x: int) -> int:
    """The least power of two that is ≥ x."""
    return 1 << max(0, x - 1).bit_length()
