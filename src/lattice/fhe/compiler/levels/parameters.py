"""The smallest secure primes for a depth and a precision: nobody picks moduli by hand.

Q is a base of one prime (two where results are too large for one) and one of about the scale's size for each level. P
is chosen among one to four primes: more of P means fewer and larger digits, so smaller and faster keys, until the
bound is reached. Digits keep log D ≤ log P − 4 (`ckks.digits`). A prime list that misses the bound is never returned:
`Parameters` refuses it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.digits import SLACK_BITS
from lattice.fhe.ckks.parameters import Parameters, parameters
from lattice.fhe.ckks.security import Security, max_log_qp
from lattice.fhe.ring.modulus import PRIME_BITS

BASE_BITS = PRIME_BITS
MAX_SPECIAL = 4
MIN_PRIME_BITS = 20


class Need(NamedTuple):
    """What a program asks of a chain."""

    depth: int
    scale_bits: int
    base_bits: tuple[int, ...]
    keys: bool
    """Whether it needs evaluation keys, so special primes."""


class Shape(NamedTuple):
    """Bit sizes of one candidate, and what a key switch with it costs."""

    special: tuple[int, ...]
    digits: int
    log_qp: int

    @property
    def work(self) -> float:
        """Limb transforms of a key switch, times digits for the products: proportional to time, nearly."""
        return self.digits + 0.25 * len(self.special)


def minimal_log_n(need: Need, security: Security) -> int | None:
    """The smallest ring whose bound has room, or None."""
    return next((log_n for log_n in range(10, 17) if shapes(need, log_n, security)), None)


def shapes(need: Need, log_n: int, security: Security) -> list[Shape]:
    """Every choice of special primes within the bound, best first."""
    q_sizes = [*need.base_bits, *[need.scale_bits] * need.depth]
    room = max_log_qp(log_n, security) - sum(q_sizes)
    if min(q_sizes) < max(MIN_PRIME_BITS, log_n + 2):
        return []
    if not need.keys:
        return [Shape((), 0, sum(q_sizes))] if room >= 0 else []
    found = [
        Shape(sizes, _digits(q_sizes, sum(sizes)), sum(q_sizes) + sum(sizes))
        for total in range(max(need.base_bits) + SLACK_BITS, room + 1)
        for sizes in _splits(total, log_n)
    ]
    return sorted(found, key=lambda shape: (_time(shape, len(q_sizes)), shape.log_qp))


def choose(need: Need, log_n: int, security: Security) -> Parameters:
    """The best of `shapes`, with primes; `model_too_deep` where there is none."""
    found = shapes(need, log_n, security)
    if not found:
        raise too_deep(need, security, log_n)
    best = found[0]
    return parameters(
        log_n=log_n,
        base_bits=need.base_bits,
        level_bits=[need.scale_bits] * need.depth,
        special_bits=best.special,
        scale_bits=need.scale_bits,
        security=security,
    )


def too_deep(need: Need, security: Security, log_n: int | None = None) -> LatticeError:
    """Says what is needed, what there is, and what to do."""
    largest = log_n or 16
    bits = sum(need.base_bits) + need.depth * need.scale_bits
    bits += max(need.base_bits) + SLACK_BITS if need.keys else 0
    bound = max_log_qp(largest, security)
    return LatticeError(
        "model_too_deep",
        f"The model needs {need.depth} levels of {need.scale_bits} bits, log2(QP) = {bits} at least; "
        f"128 bits of {security} security allow {bound} at N = 2^{largest}.",
        details={
            "depth": need.depth,
            "scale_bits": need.scale_bits,
            "bits_needed": bits,
            "bits_available": bound,
            "log_n": largest,
        },
    )


def _digits(q_sizes: list[int], special: int) -> int:
    """How many digits the top level has; sizes stand for the primes, which lie just below them."""
    digits, held = 1, 0
    for size in q_sizes:
        if held and held + size > special - SLACK_BITS:
            digits, held = digits + 1, 0
        held += size
    return digits


def _time(shape: Shape, limbs: int) -> float:
    """Of a key switch at the top, in transforms: every digit is extended to all primes; two ModDowns."""
    wide = limbs + len(shape.special)
    return shape.digits * wide * 1.5 + 2 * wide


def _splits(total: int, log_n: int) -> Iterator[tuple[int, ...]]:
    """The bits spread evenly over as few primes as can hold them."""
    for count in range(1, MAX_SPECIAL + 1):
        sizes = tuple((total + k) // count for k in reversed(range(count)))
        if max(sizes) <= PRIME_BITS and min(sizes) > log_n + 6:
            yield sizes
            return
