"""Evaluation of Σ c_i·T_i(x) on [−1, 1] by Paterson–Stockmeyer in the Chebyshev basis, depth ⌈log2(degree + 1)⌉.

The recursion writes p = q·T_m + r for a power of two m ≤ deg p, with T_i·T_m = (T_{i+m} + T_{|i−m|})/2. It is written
once over abstract arithmetic: on ciphertexts it evaluates, on types (`TypeArithmetic`) it predicts the result and
counts.

Exact scales: whoever asks for a polynomial says at which scale. A summand's constant is rounded at whatever rational
scale makes the sum meet, and a quotient is asked for at (wanted scale)/(scale of T_m), so nothing is ever "nearly"
equal.
Lazy: r is added before the product is relinearised and rescaled, so that a chain q1·T_m1 + q2·T_m2 + … + leaf
costs one relinearisation and one rescale (the sums of Bossuat et al., eprint 2020/1203, with the depth of their
algorithm 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import Generic, NamedTuple, Protocol, TypeVar

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.hal import rules
from lattice.fhe.hal.rules import CiphertextType

T = TypeVar("T")
MAX_DEGREE = 4095


class Arithmetic(Protocol[T]):
    """What the recursion needs of ciphertexts, or of their types."""

    @property
    def params(self) -> ParameterSet: ...
    def type_of(self, x: T) -> CiphertextType: ...
    def add(self, x: T, y: T) -> T: ...
    def subtract(self, x: T, y: T) -> T: ...
    def add_constant(self, x: T, value: float) -> T: ...
    def multiply_constant(self, x: T, value: float, scale: Fraction) -> T: ...
    def multiply(self, x: T, y: T) -> T: ...
    def relinearise(self, x: T) -> T: ...
    def rescale(self, x: T) -> T: ...
    def drop(self, x: T, level: int) -> T: ...
    def settle(self, x: T) -> T: ...


class Cost(NamedTuple):
    """Of one evaluation, in the order in which plans are compared."""

    relinearisations: int
    products: int
    split: int


def depth(degree: int) -> int:
    """Levels that a polynomial of this degree takes."""
    return degree.bit_length()


def trimmed(coefficients: Sequence[float]) -> list[float]:
    """Without trailing zeros; at least degree 1, at most `MAX_DEGREE`."""
    out = [float(c) for c in coefficients]
    while out and out[-1] == 0.0:
        out.pop()
    if not 2 <= len(out) <= MAX_DEGREE + 1:
        raise LatticeError("circuit_invalid", f"The polynomial has degree {len(out) - 1}; it must be 1 … {MAX_DEGREE}.")
    if not all(abs(c) < 2.0**40 for c in out):
        raise LatticeError("circuit_invalid", "A coefficient of the polynomial is not a number below 2^40.")
    return out


def evaluate(on: Arithmetic[T], x: T, coefficients: Sequence[float], scale: Fraction, split: int) -> T:
    """Σ coefficients[i]·T_i(x) at exactly `scale`, `depth` levels below x. Leaves have degrees below 2^split."""
    terms = trimmed(coefficients)
    start, need = on.type_of(x).level, depth(len(terms) - 1)
    if start < need:
        message = f"Degree {len(terms) - 1} takes {need} levels and the ciphertext has {start}."
        raise LatticeError("level_exhausted", message)
    return _Evaluation(on, x, split).at(terms, start - need, scale)


def plan_split(params: ParameterSet, x: CiphertextType, coefficients: Sequence[float], scale: Fraction) -> Cost:
    """The split with the fewest relinearisations, then products, found by evaluating on types."""
    terms = trimmed(coefficients)
    found = []
    for split in range(1, depth(len(terms) - 1) + 1):
        counter = TypeArithmetic(params)
        evaluate(counter, x, terms, scale, split)
        found.append(Cost(counter.relinearisations, counter.products, split))
    return min(found)


class _Evaluation(Generic[T]):
    """One run: the Chebyshev powers computed so far, each once."""

    def __init__(self, on: Arithmetic[T], x: T, split: int) -> None:
        self.on = on
        self.start = on.type_of(x).level
        self.split = split
        self.powers: dict[int, T] = {1: x}

    def at(self, terms: list[float], level: int, scale: Fraction) -> T:
        """The polynomial at this level and scale."""
        dropped = prod(self.on.params.levels[level])
        return self.finish(self.unfinished(terms, level + 1, scale * dropped))

    def finish(self, x: T) -> T:
        """Relinearise where needed, and rescale."""
        if self.on.type_of(x).components == 3:
            x = self.on.relinearise(x)
        return self.on.rescale(x)

    def unfinished(self, terms: list[float], level: int, scale: Fraction) -> T:
        """The polynomial before relinearisation and rescale."""
        degree = len(terms) - 1
        if degree < 1 << self.split and (degree - 1).bit_length() <= self.start - level:
            return self.leaf(terms, level, scale)
        m = 1 << (degree.bit_length() - 1)
        quotient, rest = divide(terms, m)
        high = self.on.drop(self.power(m), level)
        high_scale = self.on.type_of(high).scale
        if len(quotient) == 1:
            out = self.on.multiply_constant(high, quotient[0], scale / high_scale)
        else:
            out = self.on.multiply(self.at(quotient, level, scale / high_scale), high)
        if len(rest) > 1:
            return self.on.add(out, self.unfinished(rest, level, scale))
        return self.on.add_constant(out, rest[0]) if rest and rest[0] else out

    def leaf(self, terms: list[float], level: int, scale: Fraction) -> T:
        """Σ c_i·T_i with one constant each."""
        out: T | None = None
        for index in range(len(terms) - 1, 0, -1):
            if terms[index]:
                power = self.on.drop(self.power(index), level)
                term = self.on.multiply_constant(power, terms[index], scale / self.on.type_of(power).scale)
                out = term if out is None else self.on.add(out, term)
        assert out is not None, "a leaf has degree 1 or more"
        return self.on.add_constant(out, terms[0]) if terms[0] else out

    def power(self, index: int) -> T:
        """T_index, ⌈log2 index⌉ levels below x: T_{a+b} = 2·T_a·T_b − T_{a−b} with a and b as equal as can be."""
        if index not in self.powers:
            a, b = self.power((index + 1) // 2), self.power(index // 2)
            level = self.on.type_of(a).level
            product = self.on.multiply(a, self.on.drop(b, level))
            doubled = self.on.add(product, product)
            self.powers[index] = self.on.settle(self.finish(self.minus_power(doubled, index % 2, level)))
        return self.powers[index]

    def minus_power(self, product: T, index: int, level: int) -> T:
        """product − T_index, for index 0 or 1."""
        if index == 0:
            return self.on.add_constant(product, -1.0)
        x = self.on.drop(self.powers[1], level)
        ratio = self.on.type_of(product).scale / self.on.type_of(x).scale
        return self.on.subtract(product, self.on.multiply_constant(x, 1.0, ratio))


def divide(terms: Sequence[float], m: int) -> tuple[list[float], list[float]]:
    """(q, r) with Σ terms·T = q·T_m + r and deg r < m, for m ≤ deg < 2m; r without trailing zeros, perhaps empty."""
    quotient = [terms[m], *(2.0 * c for c in terms[m + 1 :])]
    rest = list(terms[:m])
    for index, c in enumerate(terms[m + 1 :], m + 1):
        rest[2 * m - index] -= c
    while rest and rest[-1] == 0.0:
        rest.pop()
    return quotient, rest


class TypeArithmetic:
    """Arithmetic on types: what would come out, and how many relinearisations and products it would take."""

    def __init__(self, params: ParameterSet) -> None:
        self.params = params
        self.relinearisations = 0
        self.products = 0
        self.relinearised_at: set[int] = set()

    def type_of(self, x: CiphertextType) -> CiphertextType:
        """Itself."""
        return x

    def add(self, x: CiphertextType, y: CiphertextType) -> CiphertextType:
        """As the rules say."""
        return rules.add(x, y)

    def subtract(self, x: CiphertextType, y: CiphertextType) -> CiphertextType:
        """As the rules say."""
        return rules.add(x, y)

    def add_constant(self, x: CiphertextType, value: float) -> CiphertextType:
        """As the rules say."""
        return rules.add_constant(x)

    def multiply_constant(self, x: CiphertextType, value: float, scale: Fraction) -> CiphertextType:
        """As the rules say."""
        return rules.multiply_constant(self.params, x, scale)

    def multiply(self, x: CiphertextType, y: CiphertextType) -> CiphertextType:
        """As the rules say; counted."""
        self.products += 1
        return rules.multiply(self.params, x, y)

    def relinearise(self, x: CiphertextType) -> CiphertextType:
        """As the rules say; counted."""
        self.relinearisations += 1
        self.relinearised_at.add(x.level)
        return rules.relinearise(x)

    def rescale(self, x: CiphertextType) -> CiphertextType:
        """As the rules say."""
        return rules.rescale(self.params, x)

    def drop(self, x: CiphertextType, level: int) -> CiphertextType:
        """As the rules say."""
        return rules.drop(self.params, x, level)

    def settle(self, x: CiphertextType) -> CiphertextType:
        """As the rules say."""
        return rules.settle(x)
