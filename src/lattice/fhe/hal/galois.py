"""Galois elements: which automorphism X ↦ X^g a rotation or a conjugation is."""

from __future__ import annotations

from lattice.fhe.ckks.parameters import ParameterSet

IDENTITY = 1
"""The Galois element that moves nothing; it never needs a key."""
RELINEARISATION = 0
"""Stands for s² where a Galois element stands for σ(s)."""


def element_of(params: ParameterSet, steps: int) -> int:
    """The Galois element that turns left by `steps` slots (negative: right)."""
    return pow(5, steps % params.slots, 2 * params.n)


def conjugation(params: ParameterSet) -> int:
    """The Galois element that conjugates every slot."""
    return 2 * params.n - 1


def describe(params: ParameterSet, element: int) -> str:
    """A Galois element in words, for messages and listings."""
    if element == RELINEARISATION:
        return "relinearisation"
    if element == conjugation(params):
        return "conjugation"
    steps = steps_of(params, element)
    return f"automorphism X^{element}" if steps is None else f"rotation by {steps}"


def steps_of(params: ParameterSet, element: int) -> int | None:
    """The rotation 0 ≤ r < slots whose element this is, if it is one: the discrete logarithm to base 5, bit by bit."""
    order, steps, inverse = params.slots, 0, pow(5, -1, 2 * params.n)
    if element % 4 != 1:
        return None
    bit = 1
    while bit < order:
        rest = element * pow(inverse, steps, 2 * params.n)
        if pow(rest, order // (2 * bit), 2 * params.n) != 1:
            steps += bit
        bit *= 2
    return steps
