"""Automorphisms X ↦ X^g of Z[X]/(X^N + 1), for odd g modulo 2N: how slots rotate and conjugate.

The slots sit at the roots ζ^(5^j) (Cheon, Kim, Kim, Song, eprint 2016/421; the orbit of 5 together with -1 is the
group of units modulo 2N), so that X ↦ X^(5^r) rotates them left by r and X ↦ X^(2N-1) conjugates them. In NTT form an
automorphism only moves positions, because evaluating a(X^g) at ψ^(2i+1) is evaluating a at ψ^(g(2i+1)).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ring.modulus import Residues, neg
from lattice.fhe.ring.ntt import bit_reversal


def rotation_element(steps: int, n: int) -> int:
    """g for a rotation of the N/2 slots to the left by `steps` (negative: to the right)."""
    return pow(5, steps % (n // 2), 2 * n)


def conjugation_element(n: int) -> int:
    """g for complex conjugation of every slot."""
    return 2 * n - 1


def inverse_element(g: int, n: int) -> int:
    """The g that undoes g."""
    return pow(g, -1, 2 * n)


def check_element(g: int, n: int) -> None:
    """Only odd g below 2N are automorphisms."""
    if not 0 < g < 2 * n or g % 2 == 0:
        raise LatticeError("invalid_parameters", f"{g} is not an odd number below {2 * n}.")


@lru_cache(maxsize=512)
def ntt_permutation(g: int, n: int) -> NDArray[np.int64]:
    """`source` with out[k] = in[source[k]]: out[bitrev(i)] = in[bitrev(i')], 2i' + 1 = g(2i + 1) mod 2N."""
    check_element(g, n)
    order = bit_reversal(n)
    i = np.arange(n, dtype=np.int64)
    moved = (g * (2 * i + 1) % (2 * n) - 1) // 2
    source = np.empty(n, dtype=np.int64)
    source[order] = order[moved]
    source.flags.writeable = False
    return source


def automorphism_ntt(x: Residues, g: int) -> Residues:
    """Apply X ↦ X^g to evaluations `[…, N]`."""
    return np.take(x, ntt_permutation(g, x.shape[-1]), axis=-1)


def automorphism_coefficients(x: Residues, g: int, moduli: tuple[int, ...]) -> Residues:
    """Apply X ↦ X^g to coefficients `[…, limbs, N]`: coefficient j moves to gj mod 2N, and X^N = -1 turns the sign."""
    n = x.shape[-1]
    check_element(g, n)
    target = np.arange(n, dtype=np.int64) * g % (2 * n)
    out = np.empty_like(x)
    out[..., target % n] = np.where(target >= n, neg(x, moduli), x)
    return out
