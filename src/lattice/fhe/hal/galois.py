"""Galois elements in words: which rotation or conjugation an automorphism X ↦ X^g is."""

from __future__ import annotations

from lattice.fhe.ckks.evaluation_keys import RELINEARISATION
from lattice.fhe.ring.automorphism import conjugation_element

IDENTITY = 1
"""The element that moves nothing; it never needs a key."""


def describe(element: int, n: int) -> str:
    """For messages and listings."""
    if element == RELINEARISATION:
        return "relinearisation"
    if element == conjugation_element(n):
        return "conjugation"
    steps = steps_of(element, n)
    return f"automorphism X^{element}" if steps is None else f"rotation by {steps}"


def steps_of(element: int, n: int) -> int | None:
    """The rotation 0 ≤ r < N/2 whose element this is, if it is one: the discrete logarithm to base 5, bit by bit."""
    if element % 4 != 1:
        return None
    steps, bit, inverse = 0, 1, pow(5, -1, 2 * n)
    while 2 * bit <= n // 2:
        rest = element * pow(inverse, steps, 2 * n)
        if pow(rest, n // 2 // (2 * bit), 2 * n) != 1:
            steps += bit
        bit *= 2
    return steps
