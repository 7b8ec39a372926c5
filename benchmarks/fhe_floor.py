"""What the machine cannot go below: butterflies at the in-cache rate of our own transform, bytes at measured bandwidth.

The floor of an operation is the larger of the two. It ignores pointwise products, base conversion and Python, so 1.0
cannot be reached; the distance says where there is something left to win, and which of the two it is.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import numpy as np

from lattice.fhe.hal.backend import Backend, KeySwitchContext
from lattice.fhe.ring.primes import find_primes

WORD = 8


class Work(NamedTuple):
    """Counted, not measured."""

    butterflies: int
    bytes: int

    def __add__(self, other: Any) -> Work:
        return Work(self.butterflies + other.butterflies, self.bytes + other.bytes)

    def times(self, factor: float) -> Work:
        """Scaled, for averages over several operations."""
        return Work(round(self.butterflies * factor), round(self.bytes * factor))


class Machine(NamedTuple):
    """Measured on the core that the benchmark runs on."""

    butterfly_ns: float
    bandwidth_gb_s: float

    def floor_ms(self, work: Work) -> tuple[float, str]:
        """The floor and what sets it."""
        compute = work.butterflies * self.butterfly_ns / 1e6
        memory = work.bytes / self.bandwidth_gb_s / 1e6
        return (compute, "butterflies") if compute >= memory else (memory, "bytes")


def measure(backend: Backend, threads: int = 1) -> Machine:
    """Best of many; a batch of transforms that stays in the second-level cache, and copies of 256 MiB."""
    n, batch = 4096, 16
    (q,) = find_primes(49, n, 1, [])
    x = np.random.default_rng(0).integers(0, q, (batch, 1, n), dtype=np.uint64)
    butterfly = min(_seconds(lambda: backend.ntt(x, (q,), n)) for _ in range(300)) * 1e9 / (batch * n // 2 * 12)
    source = np.ones(1 << 25, dtype=np.uint64)
    target = np.empty_like(source)
    copy = min(_seconds(lambda: np.copyto(target, source)) for _ in range(5))
    return Machine(butterfly, threads * 2 * source.nbytes / copy / 1e9)


def _seconds(call: Any) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def transforms(n: int, count: int) -> Work:
    """`count` transforms of one limb, in cache."""
    return Work(count * (n // 2) * (n.bit_length() - 1), 0)


def decompose(ctx: KeySwitchContext) -> Work:
    """One ModUp of all digits: inverse transforms of c, forward ones of every converted limb."""
    limbs, wide = len(ctx.q_moduli), len(ctx.moduli)
    converted = len(ctx.digits) * wide - limbs
    return transforms(ctx.n, limbs + converted) + Work(0, (limbs + len(ctx.digits) * wide) * ctx.n * WORD)


def gadget(ctx: KeySwitchContext) -> Work:
    """One key read; the digits are in cache at best."""
    return Work(0, 2 * len(ctx.digits) * len(ctx.moduli) * ctx.n * WORD)


def mod_down(ctx: KeySwitchContext) -> Work:
    """Both halves."""
    limbs, special = len(ctx.q_moduli), len(ctx.special)
    return transforms(ctx.n, 2 * (limbs + special)) + Work(0, 2 * (2 * limbs + special) * ctx.n * WORD)


def rotation(ctx: KeySwitchContext) -> Work:
    """Also a relinearisation, but for the automorphism."""
    return decompose(ctx) + gadget(ctx) + mod_down(ctx)


def hoisted(ctx: KeySwitchContext, count: int) -> Work:
    """Per rotation, when `count` share a decomposition."""
    return gadget(ctx) + mod_down(ctx) + decompose(ctx).times(1 / count)


def rescale(n: int, kept: int, dropped: int) -> Work:
    """Both components."""
    return transforms(n, 2 * (kept + dropped)) + Work(0, 2 * (2 * kept + dropped) * n * WORD)


def pointwise(n: int, limbs: int, operands: int) -> Work:
    """Memory only."""
    return Work(0, limbs * operands * n * WORD)


def matrix(ctx: KeySwitchContext, babies: int, giants: int, diagonals: int) -> Work:
    """Double-hoisted: one decomposition, a gadget product for each baby; both and half a ModDown for each giant."""
    half = mod_down(ctx).times(0.5)
    work = decompose(ctx) + gadget(ctx).times(babies) + mod_down(ctx)
    work = work + (decompose(ctx) + gadget(ctx) + half).times(giants)
    return work + pointwise(ctx.n, len(ctx.moduli), diagonals)
