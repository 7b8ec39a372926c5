"""Exact vectorised arithmetic modulo primes below 2^50, on `uint64` tensors whose limb axis carries the primes.

The product of two 50-bit numbers does not fit 64 bits, so `mul` estimates the quotient ⌊x·y/q⌋ in IEEE double
precision and takes the remainder in wrapping 64-bit integers (Shoup's NTL, `MulMod` with floating-point quotient;
Dekker–style error bound). With x < 2^50 and y < q < 2^50 all inputs are exact doubles, three roundings give a relative
error below 3.01·2^-53, and x·y/q < 2^50, so that the estimate is off by less than 0.38 before truncation and by at
most one after it: the remainder lies in [-q, 2q) and two conditional corrections make it exact. No result depends on
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Residues: TypeAlias = NDArray[np.uint64]
"""`[…, limbs, N]`, every entry fully reduced modulo the prime of its limb."""

Reals: TypeAlias = NDArray[np.float64]

PRIME_BITS = 50
"""Primes are below 2^50: one bit more leaves the AVX-512 IFMA path of the native backend."""


@lru_cache(maxsize=4096)
def column(moduli: tuple[int, ...]) -> Residues:
    """The primes as a `[limbs, 1]` column that broadcasts against `[…, limbs, N]`."""
    out = np.array(moduli, dtype=np.uint64)[:, None]
    out.flags.writeable = False
    return out


@lru_cache(maxsize=4096)
def inverse_column(moduli: tuple[int, ...]) -> Reals:
    """1/q in double precision, as a column."""
    out = 1.0 / np.array(moduli, dtype=np.float64)[:, None]
    out.flags.writeable = False
    return out


def as_float(x: Residues) -> Reals:
    """Residues as doubles, exactly (they are below 2^53)."""
    return x.view(np.int64).astype(np.float64)


def fold(r: Residues, q: Residues) -> Residues:
    """Bring wrapped values of [-q, 2q) into [0, q), in place. `minimum` picks the side that did not wrap."""
    np.minimum(r, r + q, out=r)
    np.minimum(r, r - q, out=r)
    return r


def mul_by_ratio(x: Residues, w: Residues, ratio: Reals, q: Residues) -> Residues:
    """x·w mod q where `ratio` = w/q in double precision is known beforehand (twiddles, constants). x < 2^50."""
    quotient = (as_float(x) * ratio).astype(np.int64).view(np.uint64)
    quotient *= q
    out = x * w
    out -= quotient
    return fold(out, q)


def mul(x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
    """x·y limb by limb; one factor must be reduced, the other below 2^50."""
    q, inverse = column(tuple(moduli)), inverse_column(tuple(moduli))
    estimate = as_float(x) * as_float(y)
    estimate *= inverse
    quotient = estimate.astype(np.int64).view(np.uint64)
    quotient *= q
    out: Residues = x * y
    out -= quotient
    return fold(out, q)


def add(x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
    """x + y, limb by limb."""
    out: Residues = x + y
    np.minimum(out, out - column(tuple(moduli)), out=out)
    return out


def sub(x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
    """x - y, limb by limb."""
    out: Residues = x - y
    np.minimum(out, out + column(tuple(moduli)), out=out)
    return out


def neg(x: Residues, moduli: Sequence[int]) -> Residues:
    """-x, limb by limb."""
    return sub(np.zeros((), dtype=np.uint64), x, moduli)


def mul_add(acc: Residues, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
    """acc + x·y, limb by limb."""
    return add(acc, mul(x, y, moduli), moduli)


def mul_scalar(x: Residues, scalars: Sequence[int], moduli: Sequence[int]) -> Residues:
    """Limb k of x times `scalars[k]` (any integer; reduced here)."""
    moduli = tuple(moduli)
    w = np.array([s % q for s, q in zip(scalars, moduli, strict=True)], dtype=np.uint64)[:, None]
    return mul_by_ratio(x, w, as_float(w) / as_float(column(moduli)), column(moduli))


def reduce(x: Residues, moduli: Sequence[int]) -> Residues:
    """Any `uint64` values modulo the limb's prime."""
    out: Residues = x % column(tuple(moduli))
    return out


def reduce_signed(x: NDArray[np.int64], moduli: Sequence[int]) -> Residues:
    """Signed integers `[…, N]` as residues `[…, limbs, N]`."""
    q, limbs = column(tuple(moduli)), x[..., None, :]
    if max(int(x.max(initial=0)), -int(x.min(initial=0))) < min(moduli):
        wrapped = np.ascontiguousarray(limbs).view(np.uint64)
        out: Residues = np.minimum(wrapped, wrapped + q)
        return out
    return np.remainder(limbs, q.view(np.int64)).view(np.uint64)


def centre(x: Residues, q: int) -> NDArray[np.int64]:
    """One limb as signed integers in (-q/2, q/2]."""
    out: NDArray[np.int64] = np.where(x > q // 2, x - np.uint64(q), x).view(np.int64)
    return out
