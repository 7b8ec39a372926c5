"""Parameters as values: ring degree, modulus chain, special primes, scale. Frozen, hashable, checked when made.

A *level* is a group of one or more primes (so that a step may be wider than 50 bits): at level ℓ a ciphertext lives
modulo base ∪ levels[0] ∪ … ∪ levels[ℓ-1], and rescaling there drops the group levels[ℓ-1]. Scales are exact rationals.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.digits import DigitPlan, KeySwitchContext
from lattice.fhe.ckks.security import ERROR_ETA, TERNARY, Security, log2_product, require_secure
from lattice.fhe.ring.primes import MAX_LOG_N, MIN_LOG_N, find_primes, is_ntt_prime

MAX_PRIMES = 128
MAX_ETA = 31


@dataclass(frozen=True, init=False)
class ParameterSet:
    """The interface that secure and test parameters share. Make a `Parameters`."""

    log_n: int
    base: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]
    special: tuple[int, ...]
    scale: Fraction
    secret: str
    error_eta: int
    security: Security

    insecure: ClassVar[bool] = True
    min_log_n: ClassVar[int] = 1

    def __init__(
        self,
        log_n: int,
        base: Sequence[int],
        levels: Sequence[Sequence[int]] = (),
        special: Sequence[int] = (),
        scale: Fraction | int = 1 << 30,
        secret: str = TERNARY,
        error_eta: int = ERROR_ETA,
        security: str = Security.CLASSICAL,
    ) -> None:
        put = object.__setattr__
        put(self, "log_n", log_n)
        put(self, "base", tuple(base))
        put(self, "levels", tuple(tuple(group) for group in levels))
        put(self, "special", tuple(special))
        put(self, "scale", Fraction(scale))
        put(self, "secret", secret)
        put(self, "error_eta", error_eta)
        put(self, "security", Security(security))
        self._check()

    def _check(self) -> None:
        primes = self.primes()
        if not self.min_log_n <= self.log_n <= MAX_LOG_N:
            raise _invalid(f"N = 2^{self.log_n} is outside 2^{self.min_log_n} … 2^{MAX_LOG_N}.")
        if not self.base or not all(self.levels) or len(primes) > MAX_PRIMES:
            raise _invalid(f"The base and every level need a prime, and {MAX_PRIMES} primes are the most.")
        if len(set(primes)) != len(primes):
            raise _invalid("A prime occurs twice.")
        for q in primes:
            if not is_ntt_prime(q, self.n):
                raise _invalid(f"{q} is not a prime below 2^50 that is 1 modulo {2 * self.n}.")
        if self.scale <= 0:
            raise _invalid(f"The scale {self.scale} is not positive.")
        if not 1 <= self.error_eta <= MAX_ETA:
            raise _invalid(f"η = {self.error_eta} is outside 1 … {MAX_ETA}.")

    @property
    def n(self) -> int:
        """The ring degree."""
        return 1 << self.log_n

    @property
    def slots(self) -> int:
        """How many complex values a plaintext holds."""
        return self.n // 2

    @property
    def max_level(self) -> int:
        """The level of a fresh ciphertext."""
        return len(self.levels)

    def primes(self) -> tuple[int, ...]:
        """Every prime of Q, then of P: what the security bound is about."""
        return (*self.base, *chain.from_iterable(self.levels), *self.special)

    def check_level(self, level: int) -> int:
        """`level`, or `level_mismatch`."""
        if not 0 <= level <= self.max_level:
            raise LatticeError(
                "level_mismatch", f"Level {level} does not exist; these parameters have 0 … {self.max_level}."
            )
        return level

    def q_moduli(self, level: int) -> tuple[int, ...]:
        """The primes of a ciphertext at `level`, in the order of its limbs."""
        self.check_level(level)
        return (*self.base, *chain.from_iterable(self.levels[:level]))

    def dropped(self, level: int) -> tuple[int, ...]:
        """The group that rescaling at `level` removes."""
        if level == 0:
            raise LatticeError("level_exhausted", "The ciphertext is at level 0; there is no prime left to rescale by.")
        self.check_level(level)
        return self.levels[level - 1]

    def special_at(self, level: int) -> tuple[int, ...]:
        """The special primes of keys made for `level`."""
        self.check_level(level)
        return self.special

    def log_q(self, level: int) -> float:
        """log2 of the modulus at `level`."""
        return log2_product(self.q_moduli(level))

    @property
    def log_qp(self) -> float:
        """log2 of the largest modulus of all, that of a key for the top level."""
        return log2_product(self.primes())

    def digit_plan(self, level: int) -> DigitPlan:
        """The digits of an evaluation key made for `level`."""
        special = self.special_at(level)
        if not special:
            raise LatticeError("missing_evaluation_key", "Parameters without special primes have no evaluation keys.")
        return DigitPlan(self.n, self.q_moduli(level), special)

    def key_switch_context(self, level: int, key_level: int | None = None) -> KeySwitchContext:
        """Switching a ciphertext at `level` with a key made for `key_level` (the top level unless said)."""
        key_level = self.max_level if key_level is None else key_level
        if key_level < self.check_level(level):
            raise LatticeError(
                "missing_evaluation_key",
                f"The key was made for level {key_level} and the ciphertext is at level {level}.",
            )
        return self.digit_plan(key_level).context(len(self.q_moduli(level)))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, which `from_dict` reads back and which the id is a hash of."""
        return {
            "log_n": self.log_n,
            "base": list(self.base),
            "levels": [list(group) for group in self.levels],
            "special": list(self.special),
            "scale": [self.scale.numerator, self.scale.denominator],
            "secret": self.secret,
            "error_eta": self.error_eta,
            "security": self.security.value,
        }

    @cached_property
    def id(self) -> str:
        """`par_` and half a SHA-256 of the canonical JSON. Equal ids mean equal parameters."""
        canonical = json.dumps({**self.to_dict(), "insecure": self.insecure}, sort_keys=True, separators=(",", ":"))
        return f"par_{hashlib.sha256(canonical.encode()).hexdigest()[:32]}"


class Parameters(ParameterSet):
    """Parameters with at least 128 bits of security: the constructor refuses all others."""

    insecure = False
    min_log_n = MIN_LOG_N

    def _check(self) -> None:
        super()._check()
        require_secure(self, self.security)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Parameters:
        """Read `to_dict`'s form; everything is checked anew."""
        try:
            numerator, denominator = data["scale"]
            fields = {**data, "scale": Fraction(numerator, denominator)}
            return cls(**fields)
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            raise _invalid("The description of the parameters is malformed.") from None


class InsecureTestParameters(ParameterSet):
    """Tiny rings for tests. No security whatever; refused by everything that serialises or leaves the process."""


def _invalid(message: str) -> LatticeError:
    return LatticeError("invalid_parameters", message)


def refuse_insecure(params: ParameterSet) -> None:
    """Keep test parameters inside the process."""
    if params.insecure:
        raise LatticeError("parameters_insecure", "Test parameters have no security and never leave the process.")


def parameters(
    *,
    log_n: int,
    base_bits: int | Sequence[int],
    level_bits: Sequence[int | Sequence[int]] = (),
    special_bits: Sequence[int] = (),
    scale_bits: int = 30,
    security: str = Security.CLASSICAL,
) -> Parameters:
    """Find the primes: the largest ones below each bit size first, all distinct. A level may be several sizes."""
    groups = [_sizes(base_bits), *[_sizes(group) for group in level_bits], tuple(special_bits)]
    taken: list[int] = []
    found: list[tuple[int, ...]] = []
    for group in groups:
        primes = []
        for bits in group:
            (q,) = find_primes(bits, 1 << log_n, 1, taken)
            taken.append(q)
            primes.append(q)
        found.append(tuple(primes))
    return Parameters(log_n, found[0], found[1:-1], found[-1], Fraction(1 << scale_bits), security=security)


def _sizes(group: int | Sequence[int]) -> tuple[int, ...]:
    return (group,) if isinstance(group, int) else tuple(group)
