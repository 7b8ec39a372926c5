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
