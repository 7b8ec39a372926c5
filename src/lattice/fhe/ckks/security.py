"""How large log2(QP) may be: "Security Guidelines for Implementing Homomorphic Encryption", eprint 2024/463.

The table is for a ternary secret and errors of σ = 3.19 and up (ours: centred binomial with η = 21, σ = 3.24), for 128
bits against classical and against quantum attackers. It is stricter than the 2018 standard. The comparison is made on
the exact product of the primes, never on rounded logarithms.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from math import prod
from typing import Protocol

from lattice.core.errors import LatticeError
from lattice.fhe.ring.primes import MAX_LOG_N


class Security(StrEnum):
    """Against whom 128 bits are asked for."""

    CLASSICAL = "classical"
    QUANTUM = "quantum"


MAX_LOG_QP: dict[Security, dict[int, int]] = {
    Security.CLASSICAL: {10: 26, 11: 53, 12: 106, 13: 214, 14: 430, 15: 868, 16: 1747},
    Security.QUANTUM: {10: 20, 11: 40, 12: 80, 13: 161, 14: 322, 15: 644, 16: 1289},
}
ERROR_ETA = 21
TERNARY = "ternary"
"""The distribution of secrets: -1, 0 and 1 alike."""


class Chain(Protocol):
    """What the bound looks at. Whoever received parameters from elsewhere hands them in as they came."""

    @property
    def log_n(self) -> int:
        """log2 of the ring degree."""
        ...

    @property
    def secret(self) -> str:
        """The secret's distribution."""
        ...

    @property
    def error_eta(self) -> int:
        """η of the centred binomial error."""
        ...

    def primes(self) -> tuple[int, ...]:
        """Every prime of Q and P."""
        ...


def max_log_qp(log_n: int, level: Security = Security.CLASSICAL) -> int:
    """The bound in bits; 0 for a ring that has none."""
    return MAX_LOG_QP[level].get(log_n, 0)


def log2_product(primes: Iterable[int]) -> float:
    """log2 of a product of primes, for people to read."""
    total = prod(primes)
    shift = max(0, total.bit_length() - 53)
    return shift + _log2(total >> shift)


def _log2(x: int) -> float:
    from math import log2

    return log2(x) if x else 0.0


def require_secure(chain: Chain, level: str = Security.CLASSICAL) -> None:
    """Raise `parameters_insecure`, with the numbers, unless the chain is within the bound for 128 bits."""
    security = Security(level)
    primes = chain.primes()
    bits, bound = log2_product(primes), max_log_qp(chain.log_n, security)
    details = {"log_n": chain.log_n, "log_qp": round(bits, 2), "max_log_qp": bound, "level": security.value}
    if chain.secret != TERNARY:
        raise LatticeError("parameters_insecure", f"Secrets of kind {chain.secret!r} have no bound.", details=details)
    if chain.error_eta != ERROR_ETA:
        raise LatticeError(
            "parameters_insecure", f"The error must have η = {ERROR_ETA}, not {chain.error_eta}.", details=details
        )
    if prod(primes) > 1 << bound:
        allowed = f"at most {bound}" if bound else f"nothing outside N = 2^10 … 2^{MAX_LOG_N}"
        raise LatticeError(
            "parameters_insecure",
            f"log2(QP) is {bits:.2f} at N = 2^{chain.log_n}; 128 bits against {security} attackers allow {allowed}.",
            details=details,
        )
