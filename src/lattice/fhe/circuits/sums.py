"""Sums over slots by rotations: log2(count) stages, or fewer and wider ones that share a decomposition.

A stage of steps (s, 2s, …, (r−1)s) turns x into the sum over r neighbours at distance s. Radix 2 needs the fewest keys;
radix 4 takes half as many decompositions and divisions for one and a half times the keys.
"""

from __future__ import annotations

from lattice.core.errors import LatticeError

Stages = tuple[tuple[int, ...], ...]


def sum_stages(count: int, *, stride: int = 1, radix: int = 2) -> Stages:
    """Stages after which slot i holds Σ_{k < count} x[i + k·stride]; count and radix are powers of two."""
    if count < 2 or count & (count - 1) or radix < 2 or radix & (radix - 1):
        raise LatticeError("circuit_invalid", f"A sum takes a power of two of slots, not {count} (radix {radix}).")
    stages = []
    reach = 1
    while reach < count:
        width = min(radix, count // reach)
        stages.append(tuple(stride * reach * k for k in range(1, width)))
        reach *= width
    return tuple(stages)


def sum_rotations(stages: Stages, slots: int) -> tuple[int, ...]:
    """The rotations that the stages perform, ascending; a sum that would wrap around more than once is refused."""
    steps = {step % slots for stage in stages for step in stage}
    if 0 in steps:
        raise LatticeError("circuit_invalid", f"The sum reaches further than the {slots} slots.")
    return tuple(sorted(steps))
