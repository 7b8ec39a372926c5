"""The canonical embedding: N/2 complex slots ↔ N real coefficients, by a radix-2 FFT over the orbit of 5.

Slot j of a polynomial m is m(ζ^(5^j)), ζ = exp(πi/N) (Cheon, Kim, Kim, Song, eprint 2016/421). Since ζ^(5^j·N/2) = i,
it equals Σ_{k<N/2} (m_k + i·m_{k+N/2})·ζ^(5^j·k): a transform of size N/2 with twiddles ζ-powers along the orbit (the
"special FFT" of the HEAAN library). Weights must encode to the same bits everywhere, so the arithmetic is fixed: the
butterfly is t = (v_r·w_r - v_i·w_i, v_r·w_i + v_i·w_r), (u + t, u - t), each operation rounded on its own (real and
imaginary parts are kept in separate arrays because a vectorised complex product may fuse), twiddles correctly rounded,
and the division by N/2 is exact.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.ckks.twiddles import roots_of_unity
from lattice.fhe.ring.modulus import Reals
from lattice.fhe.ring.ntt import bit_reversal

Pair = tuple[Reals, Reals]
"""Real and imaginary parts `[…, slots]`."""


class Orbit(NamedTuple):
    """Tables for one ring degree."""

    rows: int
    columns: int
    gather: NDArray[np.int64]
    """Bit reversal, read so that the result lies transposed as `[columns, rows]`."""
    scatter: NDArray[np.int64]
    """Its inverse."""
    stages: tuple[Pair, ...]
    """Twiddles of the stages of length 2, 4, …: ζ to the powers (5^j mod 4·length)·2N/(4·length)."""


@lru_cache(maxsize=8)
def orbit(n: int) -> Orbit:
    """The tables of ring degree n ≥ 4."""
    slots = n // 2
    columns = 1 << (slots.bit_length() - 1) // 2
    rows = slots // columns
    gather = bit_reversal(slots).reshape(rows, columns).T.ravel()
    scatter = np.empty_like(gather)
    scatter[gather] = np.arange(slots)
    cosine, sine = roots_of_unity(max(2 * n, 8))
    fives = np.array([pow(5, j, 2 * n) for j in range(slots // 2)], dtype=np.int64)
    stages = []
    length = 2
    while length <= slots:
        index = fives[: length // 2] % (4 * length) * (2 * n // (4 * length))
        stages.append((cosine[index], sine[index]))
        length *= 2
    return Orbit(rows, columns, gather, scatter, tuple(stages))


def _product(v: Pair, w: Pair) -> Pair:
    return v[0] * w[0] - v[1] * w[1], v[0] * w[1] + v[1] * w[0]


def _stage_views(x: Pair, shape: tuple[int, ...]) -> tuple[Pair, Pair]:
    views = [part.reshape(*part.shape[:-1], *shape) for part in x]
    u, v = (tuple(part[..., half, :, :] for part in views) for half in (0, 1))
    return (u[0], u[1]), (v[0], v[1])


def _columns(w: Pair) -> Pair:
    return w[0][:, None], w[1][:, None]


def _transposed(x: Pair, first: int, second: int) -> Pair:
    """Swap a `[first, second]` matrix held in the last axis."""
    out = [part.reshape(*part.shape[:-1], first, second).swapaxes(-1, -2) for part in x]
    return (
        np.ascontiguousarray(out[0]).reshape(x[0].shape),
        np.ascontiguousarray(out[1]).reshape(x[1].shape),
    )


def evaluate(x: Pair, n: int) -> Pair:
    """Folded coefficients m_k + i·m_{k+N/2} to slots."""
    table = orbit(n)
    slots = n // 2
    x = x[0][..., table.gather], x[1][..., table.gather]
    for stage, w in enumerate(table.stages):
        length = 2 << stage
        if length == 2 * table.columns:
            x = _transposed(x, table.columns, table.rows)
        if length <= table.columns:
            u, v = _stage_views(x, (table.columns // length, 2, length // 2, table.rows))
        else:
            u, v = _stage_views(x, (slots // length, 2, 1, length // 2))
        t = _product(v, _columns(w) if length <= table.columns else w)
        for part in (0, 1):
            np.subtract(u[part], t[part], out=v[part])
            u[part].__iadd__(t[part])
    return x


def interpolate(z: Pair, n: int) -> Pair:
    """Slots to folded coefficients: the stages of `evaluate` backwards, with conjugate twiddles, divided by N/2."""
    table = orbit(n)
    slots = n // 2
    x = z[0].copy(), z[1].copy()
    for stage in reversed(range(len(table.stages))):
        w = table.stages[stage][0], -table.stages[stage][1]
        length = 2 << stage
        if length <= table.columns:
            u, v = _stage_views(x, (table.columns // length, 2, length // 2, table.rows))
            w = _columns(w)
        else:
            u, v = _stage_views(x, (slots // length, 2, 1, length // 2))
        difference = u[0] - v[0], u[1] - v[1]
        turned = _product(difference, w)
        for part in (0, 1):
            u[part].__iadd__(v[part])
            v[part][...] = turned[part]
        if length == 2 * table.columns:
            x = _transposed(x, table.rows, table.columns)
    return x[0][..., table.scatter] / slots, x[1][..., table.scatter] / slots


def to_slots(coefficients: Reals) -> NDArray[np.complex128]:
    """Real coefficients `[…, N]` to complex slots `[…, N/2]`."""
    n = coefficients.shape[-1]
    real, imaginary = evaluate((coefficients[..., : n // 2], coefficients[..., n // 2 :]), n)
    out = np.empty(real.shape, dtype=np.complex128)
    out.real, out.imag = real, imaginary
    return out


def to_coefficients(slots: NDArray[np.complex128]) -> Reals:
    """Complex slots `[…, N/2]` to real coefficients `[…, N]`."""
    real = np.ascontiguousarray(slots.real, dtype=np.float64)
    imaginary = np.ascontiguousarray(slots.imag, dtype=np.float64)
    return np.concatenate(interpolate((real, imaginary), 2 * slots.shape[-1]), axis=-1)
