"""Which rotations a circuit performs, routes over the keys that there are, and masks for slots that nobody may read.

Everything here counts in slots to the left; `hal.galois` turns steps into Galois elements.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError

MAX_HOPS = 8


def normalised(steps: Iterable[int], slots: int) -> tuple[int, ...]:
    """Distinct rotations in 1 … slots − 1, ascending: what keys are asked for."""
    return tuple(sorted({step % slots for step in steps} - {0}))


def powers_of_two(slots: int) -> tuple[int, ...]:
    """The keys over which every rotation has a route of at most log2(slots) hops."""
    return tuple(1 << bit for bit in range(slots.bit_length() - 1))


def route(steps: int, available: Collection[int], slots: int) -> tuple[int, ...]:
    """A shortest list of available rotations that add up to `steps`: fewer keys for more time, a last resort.

    Each hop costs a whole key switch and its noise, so more than `MAX_HOPS` are refused as a missing key.
    """
    target, turns = steps % slots, normalised(available, slots)
    came: dict[int, int] = {0: 0}
    queue = deque([(0, 0)])
    while queue and target not in came:
        position, hops = queue.popleft()
        if hops == MAX_HOPS:
            break
        for turn in turns:
            reached = (position + turn) % slots
            if reached not in came:
                came[reached] = turn
                queue.append((reached, hops + 1))
    if target not in came:
        raise LatticeError(
            "missing_evaluation_key", f"No route of {MAX_HOPS} rotations leads to {steps} with the keys for {turns}."
        )
    out = []
    while target:
        out.append(came[target])
        target = (target - came[target]) % slots
    return tuple(sorted(out))


def mask(slots: int, used: Iterable[int] | int) -> NDArray[np.float64]:
    """Ones in the used slots (the first `used`, or those listed), zeros elsewhere, to multiply an output by.

    A slot that a circuit leaves over holds sums of weights and inputs; an output must never carry it to the client.
    """
    chosen = list(range(used)) if isinstance(used, int) else list(used)
    if not chosen or min(chosen) < 0 or max(chosen) >= slots:
        raise LatticeError("circuit_invalid", f"A mask keeps one to {slots} slots, numbered from 0.")
    out = np.zeros(slots)
    out[chosen] = 1.0
    return out
