"""Correctly rounded roots of unity, the same on every machine.

`libm` may differ in the last bit, so the cosines and sines of the first octant are computed in 192-bit fixed point
from square roots of integers (half-angle formulas), rounded once to the nearest double; symmetry gives the other
octants exactly. A test pins the hash of the tables.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

import numpy as np

from lattice.fhe.ring.modulus import Reals

_BITS = 192
_ONE = 1 << _BITS


def _half_angle(cosine: int) -> tuple[int, int]:
    """(cos, sin) of half the angle, for an angle in the first quadrant."""
    return isqrt((_ONE + cosine) << (_BITS - 1)), isqrt((_ONE - cosine) << (_BITS - 1))


def _octant(count: int) -> list[tuple[int, int]]:
    """Fixed-point (cos, sin) of 2πk/(8·count) for k = 0 … count; `count` is a power of two."""
    steps = [_half_angle(0)]
    while len(steps) < count.bit_length():
        steps.append(_half_angle(steps[-1][0]))
    table = [(_ONE, 0)]
    for cosine, sine in reversed(steps[1:]):
        table += [_turn(point, cosine, sine) for point in table]
    # `table` doubles from the smallest angle on, so entry k is k times it; π/4 itself closes the octant.
    return [*table, steps[0]]


def _turn(point: tuple[int, int], cosine: int, sine: int) -> tuple[int, int]:
    x, y = point
    return (x * cosine - y * sine) >> _BITS, (x * sine + y * cosine) >> _BITS


@lru_cache(maxsize=16)
def roots_of_unity(order: int) -> tuple[Reals, Reals]:
    """cos and sin of 2πk/order for k = 0 … order-1, correctly rounded; `order` is a power of two, 8 at least."""
    eighth = order // 8
    points = _octant(eighth)
    cosine = np.array([x / _ONE for x, _ in points])
    sine = np.array([y / _ONE for _, y in points])
    quarter_cosine = np.concatenate([cosine, sine[-2::-1]])
    quarter_sine = np.concatenate([sine, cosine[-2::-1]])
    c, s = quarter_cosine[:-1], quarter_sine[:-1]
    real, imaginary = np.concatenate([c, -s, -c, s]), np.concatenate([s, c, -s, -c])
    real += 0.0  # no negative zeros
    imaginary += 0.0
    for out in (real, imaginary):
        out.flags.writeable = False
    return real, imaginary
