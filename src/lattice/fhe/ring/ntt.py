"""The negacyclic number-theoretic transform: `out[bitrev(i)] = Σ_j a[j]·ψ^((2i+1)j)`, natural order in, bit-reversed
out.

Cooley–Tukey forward and Gentleman–Sande backward with ψ merged into the twiddle factors (Longa & Naehrig, eprint
2016/504). The late stages pair neighbours, where numpy has nothing to vectorise over; so the array is seen as a matrix
of √N × √N and transposed once in the middle (Bailey's four steps, without extra twiddles), so that every stage runs
along a contiguous axis. Nothing is rounded: the result is the same in any order of evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.ring.modulus import Reals, Residues, as_float, mul_by_ratio
from lattice.fhe.ring.primes import root_of_unity

Number = TypeVar("Number", np.uint64, np.float64)


class Transforms(Protocol):
    """Whoever can move residues between coefficients and evaluations. Every backend is one."""

    def ntt(self, x: Residues, moduli: Sequence[int], n: int) -> Residues:
        """Coefficients `[…, limbs, n]` to evaluations."""
        ...

    def intt(self, x: Residues, moduli: Sequence[int], n: int) -> Residues:
        """Evaluations back to coefficients."""
        ...


class Twiddles(NamedTuple):
    """Powers of ψ in bit-reversed order, each with its quotient by q for `mul_by_ratio`."""

    q: Residues
    forward: Residues
    forward_ratio: Reals
    backward: Residues
    backward_ratio: Reals
    n_inverse: int


@lru_cache(maxsize=32)
def bit_reversal(n: int) -> NDArray[np.int64]:
    """The permutation i ↦ bitrev(i) on log2(n) bits."""
    bits = n.bit_length() - 1
    index = np.arange(n, dtype=np.int64)
    out = np.zeros(n, dtype=np.int64)
    for bit in range(bits):
        out |= (index >> bit & 1) << (bits - 1 - bit)
    out.flags.writeable = False
    return out


def powers(base: int, count: int, q: int) -> Residues:
    """1, base, base², … modulo q, by doubling."""
    out = np.ones(count, dtype=np.uint64)
    modulus = np.array([q], dtype=np.uint64)
    done = 1
    while done < count:
        step = np.array([pow(base, done, q)], dtype=np.uint64)
        take = min(done, count - done)
        out[done : done + take] = mul_by_ratio(out[:take], step, as_float(step) / q, modulus)
        done += take
    return out


@lru_cache(maxsize=256)
def twiddles(q: int, n: int) -> Twiddles:
    """The tables of one prime."""
    psi = root_of_unity(q, n)
    order = bit_reversal(n)
    forward = powers(psi, n, q)[order]
    backward = powers(pow(psi, -1, q), n, q)[order]
    return Twiddles(
        np.array(q, dtype=np.uint64), forward, as_float(forward) / q, backward, as_float(backward) / q, pow(n, -1, q)
    )


def _rows(n: int) -> int:
    return 1 << (n.bit_length() - 1) // 2


def _grid(table: NDArray[Number], groups: int, rows: int) -> NDArray[Number]:
    """The twiddles of the stage with `groups` groups, shaped `[groups in a row, 1, rows]` for the transposed half."""
    return table[groups : 2 * groups].reshape(rows, groups // rows).T[:, None, :]


def _forward_butterflies(x: Residues, w: Residues, ratio: Reals, q: Residues) -> None:
    """(u, v) to (u + w·v, u - w·v) along the axis -3 of `[…, groups, 2, span, inner]`, in place."""
    u, v = x[..., 0, :, :], x[..., 1, :, :]
    product = mul_by_ratio(v, w, ratio, q)
    total = u + product
    np.subtract(u, product, out=v)
    np.minimum(v, v + q, out=v)
    np.minimum(total, total - q, out=u)


def _backward_butterflies(x: Residues, w: Residues, ratio: Reals, q: Residues) -> None:
    """(u, v) to (u + v, w·(u - v)), in place."""
    u, v = x[..., 0, :, :], x[..., 1, :, :]
    difference = u - v
    np.minimum(difference, difference + q, out=difference)
    total = u + v
    np.minimum(total, total - q, out=u)
    v[...] = mul_by_ratio(difference, w, ratio, q)


def _forward_limb(a: Residues, n: int, table: Twiddles) -> Residues:
    rows = _rows(n)
    columns = n // rows
    batch = a.shape[:-1]
    x = a.copy()
    groups = 1
    while groups < rows:
        view = x.reshape(*batch, groups, 2, rows // (2 * groups), columns)
        w = table.forward[groups : 2 * groups, None, None]
        _forward_butterflies(view, w, table.forward_ratio[groups : 2 * groups, None, None], table.q)
        groups *= 2
    x = np.ascontiguousarray(x.reshape(*batch, rows, columns).swapaxes(-1, -2))
    while groups < n:
        view = x.reshape(*batch, groups // rows, 2, n // (2 * groups), rows)
        w, ratio = _grid(table.forward, groups, rows), _grid(table.forward_ratio, groups, rows)
        _forward_butterflies(view, w, ratio, table.q)
        groups *= 2
    return x.reshape(*batch, columns, rows).swapaxes(-1, -2).reshape(*batch, n)


def _backward_limb(a: Residues, n: int, table: Twiddles) -> Residues:
    rows = _rows(n)
    columns = n // rows
    batch = a.shape[:-1]
    x = np.array(a.reshape(*batch, rows, columns).swapaxes(-1, -2), order="C")
    groups = n // 2
    while groups >= rows:
        view = x.reshape(*batch, groups // rows, 2, n // (2 * groups), rows)
        w, ratio = _grid(table.backward, groups, rows), _grid(table.backward_ratio, groups, rows)
        _backward_butterflies(view, w, ratio, table.q)
        groups //= 2
    x = np.ascontiguousarray(x.reshape(*batch, columns, rows).swapaxes(-1, -2))
    while groups >= 1:
        view = x.reshape(*batch, groups, 2, rows // (2 * groups), columns)
        w = table.backward[groups : 2 * groups, None, None]
        _backward_butterflies(view, w, table.backward_ratio[groups : 2 * groups, None, None], table.q)
        groups //= 2
    scale = np.array(table.n_inverse, dtype=np.uint64)
    ratio = np.array(table.n_inverse / float(table.q))
    return mul_by_ratio(x.reshape(*batch, n), scale, ratio, table.q)


def ntt(x: Residues, moduli: Sequence[int], n: int) -> Residues:
    """Forward transform of `[…, limbs, n]`, limb by limb."""
    out = np.empty_like(x)
    for limb, q in enumerate(moduli):
        out[..., limb, :] = _forward_limb(x[..., limb, :], n, twiddles(q, n))
    return out


def intt(x: Residues, moduli: Sequence[int], n: int) -> Residues:
    """Inverse transform of `[…, limbs, n]`, limb by limb."""
    out = np.empty_like(x)
    for limb, q in enumerate(moduli):
        out[..., limb, :] = _backward_limb(x[..., limb, :], n, twiddles(q, n))
    return out


class NumpyTransforms:
    """The transforms of this module, as a `Transforms`."""

    def ntt(self, x: Residues, moduli: Sequence[int], n: int) -> Residues:
        """Coefficients to evaluations."""
        return ntt(x, moduli, n)

    def intt(self, x: Residues, moduli: Sequence[int], n: int) -> Residues:
        """Evaluations to coefficients."""
        return intt(x, moduli, n)
