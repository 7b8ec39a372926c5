"""Residue number systems: base conversion, ModUp, ModDown, and the way from and to integers.

Base conversion is the one approximate step of the scheme (Bajard, Eynard, Hasan, Zucca, eprint 2016/510; Halevi,
Polyakov, Shoup, eprint 2018/117). Ours is always *centred*: with y_j = x_j·(D/d_j)^-1 mod d_j taken in (-d_j/2,
d_j/2], the result is Σ y_j·(D/d_j) without any multiple of D removed. Because negating or permuting x negates or
permutes every y_j, conversion commutes with automorphisms, and a hoisted rotation equals a plain one bit for bit
(uncentred, it would not).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.ring.modulus import Reals, Residues, add, centre, mul_scalar, reduce_signed, sub
from lattice.fhe.ring.modulus import mul as mul_mod
from lattice.fhe.ring.ntt import Transforms


class ConversionTable(NamedTuple):
    """Constants of one conversion from primes d_j to primes p_i."""

    to_y: tuple[int, ...]
    """(D/d_j)^-1 mod d_j."""
    halves: Residues
    """⌊d_j/2⌋, as a column."""
    weights: Residues
    """`[from, to, 1]`: (D/d_j) mod p_i."""
    offset: Residues
    """`[to, 1]`: C_i = Σ_j ⌊d_j/2⌋·(D/d_j) mod p_i."""


@lru_cache(maxsize=1024)
def conversion_table(source: tuple[int, ...], target: tuple[int, ...]) -> ConversionTable:
    """The constants of `convert`."""
    total = prod(source)
    cofactors = [total // d for d in source]
    weights = [[c % p for p in target] for c in cofactors]
    offset = [sum(d // 2 * c for d, c in zip(source, cofactors, strict=True)) % p for p in target]
    return ConversionTable(
        to_y=tuple(pow(c, -1, d) for c, d in zip(cofactors, source, strict=True)),
        halves=np.array([d // 2 for d in source], dtype=np.uint64)[:, None],
        weights=np.array(weights, dtype=np.uint64).reshape(len(source), len(target), 1),
        offset=np.array(offset, dtype=np.uint64)[:, None],
    )


def convert(x: Residues, source: Sequence[int], target: Sequence[int]) -> Residues:
    """Coefficients `[…, from, N]` to other primes `[…, to, N]`: Σ_j centred(y_j)·(D/d_j) mod p_i."""
    source, target = tuple(source), tuple(target)
    table = conversion_table(source, target)
    z = add(mul_scalar(x, table.to_y, source), table.halves, source)
    out = np.zeros((*x.shape[:-2], len(target), x.shape[-1]), dtype=np.uint64)
    for j in range(len(source)):
        out = add(out, mul_mod(z[..., j : j + 1, :], table.weights[j], target), target)
    return sub(out, table.offset, target)


def mod_up(x: Residues, source: Sequence[int], target: Sequence[int]) -> Residues:
    """Extend coefficients to the primes `target`: limbs of `source` are kept as they are, all others converted."""
    source, target = tuple(source), tuple(target)
    out = np.empty((*x.shape[:-2], len(target), x.shape[-1]), dtype=np.uint64)
    kept = [i for i, q in enumerate(target) if q in source]
    made = [i for i, q in enumerate(target) if q not in source]
    out[..., kept, :] = x[..., [source.index(target[i]) for i in kept], :]
    if made:
        out[..., made, :] = convert(x, source, [target[i] for i in made])
    return out


def mod_down(x: Residues, kept: Sequence[int], dropped: Sequence[int], transforms: Transforms) -> Residues:
    """Divide evaluations over `kept` ∪ `dropped` by P = Π dropped, rounding: (x_i - convert(x|P)_i)·P^-1 mod q_i.

    For one dropped prime this rounds to the nearest integer. Rescaling is the same with the dropped group in P's
    place.
    """
    kept, dropped = tuple(kept), tuple(dropped)
    n, limbs = x.shape[-1], len(kept)
    remainder = transforms.intt(np.ascontiguousarray(x[..., limbs:, :]), dropped, n)
    correction = transforms.ntt(convert(remainder, dropped, kept), kept, n)
    total = prod(dropped)
    return mul_scalar(sub(x[..., :limbs, :], correction, kept), [pow(total, -1, q) for q in kept], kept)


def from_integers(values: Sequence[int], moduli: Sequence[int]) -> Residues:
    """Arbitrarily large signed integers `[N]` as residues `[limbs, N]`, exactly."""
    wide = np.array(values, dtype=object)
    return np.stack([np.asarray(wide % q, dtype=np.uint64) for q in moduli])


def to_integers(x: Residues, moduli: Sequence[int]) -> list[int]:
    """Coefficients `[limbs, N]` as centred integers in (-Q/2, Q/2]. For tests and the odd exact decoding."""
    total = prod(moduli)
    wide = np.zeros(x.shape[-1], dtype=object)
    for limb, q in enumerate(moduli):
        cofactor = total // q
        wide += x[limb].astype(object) * (cofactor * pow(cofactor, -1, q))
    wide %= total
    return [int(v) - total if v > total // 2 else int(v) for v in wide]


def mixed_radix(x: Residues, moduli: Sequence[int]) -> list[NDArray[np.int64]]:
    """Centred digits e_k with x = e_0 + e_1·q_0 + e_2·q_0·q_1 + … (Garner). Small numbers have zero high digits, which
    cost nothing."""
    moduli = tuple(moduli)
    digits: list[NDArray[np.int64]] = []
    for k, q in enumerate(moduli):
        rest = x[..., k : k + 1, :]
        for j, digit in enumerate(digits):
            if digit.any():
                known = mul_scalar(reduce_signed(digit, (q,)), [prod(moduli[:j])], (q,))
                rest = sub(rest, known, (q,))
        digits.append(centre(mul_scalar(rest, [pow(prod(moduli[:k]), -1, q)], (q,))[..., 0, :], q))
    return digits


def to_floats(x: Residues, moduli: Sequence[int]) -> Reals:
    """Centred coefficients `[…, limbs, N]` as doubles; deterministic, relative error of a few 2^-53."""
    digits = mixed_radix(x, moduli)
    out = digits[-1].astype(np.float64)
    for digit, q in zip(reversed(digits[:-1]), reversed(tuple(moduli)[:-1]), strict=True):
        out = out * float(q) + digit.astype(np.float64)
    return out


__all__ = [
    "ConversionTable",
    "conversion_table",
    "convert",
    "from_integers",
    "mixed_radix",
    "mod_down",
    "mod_up",
    "to_floats",
    "to_integers",
]
