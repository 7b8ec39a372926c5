"""How a ciphertext's primes are cut into digits for hybrid key switching (Han & Ki, eprint 2019/688).

Noise of a key switch grows with D/P, so digits are grouped by *bits* and never by limb count: from the first prime on,
a digit takes consecutive primes while D·2^4 ≤ P, and one prime at least. (One 50-bit and one 26-bit prime under a
57-bit P would cost 19 bits of precision.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

SLACK_BITS = 4


def cut(q_moduli: Sequence[int], special: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Half-open limb ranges of the digits, in order."""
    room = prod(special) >> SLACK_BITS
    ranges: list[tuple[int, int]] = []
    start, digit = 0, 1
    for limb, q in enumerate(q_moduli):
        if limb > start and digit * q > room:
            ranges.append((start, limb))
            start, digit = limb, 1
        digit *= q
    if q_moduli:
        ranges.append((start, len(q_moduli)))
    return tuple(ranges)


@dataclass(frozen=True)
class KeySwitchContext:
    """Everything that a key switch needs to know besides the data; hashable, so that backends cache tables by it.

    A key tensor is `[digits, 2, limbs, N]` in NTT form, halves in the order (b, a), its limbs over the *key's* q
    primes and then the special primes. A key made for a higher level serves as it is: kernels read limbs `[0,
    len(q_moduli))` and the last `len(special)` ones, and the first `len(digits)` digits.
    """

    n: int
    q_moduli: tuple[int, ...]
    special: tuple[int, ...]
    digits: tuple[tuple[int, int], ...]

    @property
    def moduli(self) -> tuple[int, ...]:
        """q primes, then special primes."""
        return (*self.q_moduli, *self.special)

    def digit_moduli(self, digit: int) -> tuple[int, ...]:
        """The primes of one digit."""
        start, end = self.digits[digit]
        return self.q_moduli[start:end]

    def key_limbs(self, key_limbs: int) -> list[int]:
        """Which limbs of a key tensor with `key_limbs` limbs belong to this context's primes, in order."""
        specials = len(self.special)
        return [*range(len(self.q_moduli)), *range(key_limbs - specials, key_limbs)]


@dataclass(frozen=True)
class DigitPlan:
    """The digits of a key made for one level, and their cut to any lower level."""

    n: int
    q_moduli: tuple[int, ...]
    special: tuple[int, ...]

    @cached_property
    def digits(self) -> tuple[tuple[int, int], ...]:
        """Limb ranges at the key's own level."""
        return cut(self.q_moduli, self.special)

    @property
    def moduli(self) -> tuple[int, ...]:
        """The primes of a key, in the order of its limbs."""
        return (*self.q_moduli, *self.special)

    def context(self, limbs: int) -> KeySwitchContext:
        """Switching a ciphertext of the first `limbs` primes with this key."""
        ranges = tuple((start, min(end, limbs)) for start, end in self.digits if start < limbs)
        return KeySwitchContext(self.n, self.q_moduli[:limbs], self.special, ranges)

    def gadget(self, digit: int) -> tuple[int, ...]:
        """P·g_d modulo every prime of a key: P at the digit's primes, 0 elsewhere (and at the special ones)."""
        start, end = self.digits[digit]
        factor = prod(self.special)
        return tuple(factor % q if start <= limb < end else 0 for limb, q in enumerate(self.moduli))
