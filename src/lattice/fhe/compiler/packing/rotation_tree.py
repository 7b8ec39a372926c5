"""All rotations 0 … count − 1 of one ciphertext from few keys: stage after stage, each hoisted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from lattice.core.errors import LatticeError
from lattice.fhe.hal import instructions as ops


@dataclass(frozen=True)
class Tree:
    """Stage t turns every ciphertext that there is by 1 … radices[t] − 1 times `strides[t]`."""

    radices: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many rotations come out, the one by zero among them."""
        return prod(self.radices)

    @property
    def strides(self) -> tuple[int, ...]:
        """The first stage takes the longest steps: the last, which does most, then hoists most."""
        return tuple(prod(self.radices[t + 1 :]) for t in range(len(self.radices)))

    @property
    def steps(self) -> tuple[int, ...]:
        """The rotation keys."""
        return tuple(
            digit * stride
            for radix, stride in zip(self.radices, self.strides, strict=True)
            for digit in range(1, radix)
        )

    @property
    def decompositions(self) -> int:
        """Ciphertexts that are cut into digits: what hoisting saves."""
        return sum(prod(self.radices[:t]) for t in range(len(self.radices)))


def plan_tree(count: int, most_keys: int) -> Tree:
    """The tree of `count` (a power of two) rotations with at most so many keys and fewest decompositions."""
    if count == 1:
        return Tree(())
    trees = [Tree(radices) for radices in _factorings(count)]
    affordable = [tree for tree in trees if len(tree.steps) <= most_keys]
    if not affordable:
        least = min(len(tree.steps) for tree in trees)
        raise LatticeError(
            "model_unsupported", f"{count} rotations take {least} keys at the least; the budget allows {most_keys}."
        )
    return min(affordable, key=lambda tree: (tree.decompositions, len(tree.steps)))


def _factorings(count: int) -> Iterator[tuple[int, ...]]:
    """Ordered products of powers of two, each stage at least as wide as the one before."""
    bits = count.bit_length() - 1

    def split(rest: int, least: int) -> Iterator[tuple[int, ...]]:
        if rest == 0:
            yield ()
        for part in range(least, rest + 1):
            for tail in split(rest - part, part):
                yield (part, *tail)

    for parts in split(bits, 1):
        yield tuple(1 << part for part in parts)


def emit(tree: Tree, source: int, steps: list[ops.Instruction], free: int) -> tuple[list[int], int]:
    """Append the rotations of register `source`, whose results are numbered from `free`; the registers in the order of
    their rotations, and the next free one."""
    registers = {0: source}
    for radix, stride in zip(tree.radices, tree.strides, strict=True):
        turns = tuple(digit * stride for digit in range(1, radix))
        for turned, register in sorted(registers.items()):
            outs = tuple(range(free, free + len(turns)))
            free += len(turns)
            steps.append(ops.RotateHoisted(outs=outs, a=register, steps=turns))
            registers |= {turned + turn: out for turn, out in zip(turns, outs, strict=True)}
    return [registers[turn] for turn in range(tree.count)], free
