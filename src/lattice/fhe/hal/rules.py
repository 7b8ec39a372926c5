"""What each operation demands of its operands and what it gives: levels, scales, components and encodings, no residues.

One set of rules serves the evaluator (before it computes), the validation of programs (before anything runs) and the
planning of polynomials (which needs only types). Scales are exact fractions: equal means equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from math import log2, prod
from typing import NamedTuple

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Encoding
from lattice.fhe.ckks.parameters import ParameterSet

EXACT_SCALE_BITS = 16_000
"""Up to this size numerators and denominators are exact. Squaring doubles them, so beyond it a scale is replaced by the
nearest of `KEPT_SCALE_BITS` bits, on every backend alike: values then differ by 2^-511 of themselves: nothing."""
SETTLED_SCALE_BITS = 1024
"""Where `settle` does so already: the powers of a polynomial, by whose scales others are divided."""
KEPT_SCALE_BITS = 512


class CiphertextType(NamedTuple):
    """Everything about a ciphertext but its residues."""

    level: int
    scale: Fraction
    components: int = 2
    encoding: Encoding = Encoding.SLOTS


class PlaintextType(NamedTuple):
    """Everything about a plaintext, or about several that go together, but the residues."""

    level: int
    scale: Fraction
    extended: bool = False
    """It has the special primes' limbs too."""
    encoding: Encoding = Encoding.SLOTS
    members: int = 0
    """How many there are; 0 for a single plaintext, which other operations take than take a list of one."""
    period: int = 0
    """With which the slots repeat, where that is how it is stored."""


def bits(scale: Fraction) -> float:
    """log2, for messages and for comparisons with a modulus."""
    return log2(scale.numerator) - log2(scale.denominator)


def text(scale: Fraction) -> str:
    """A scale as a person wants to read it; mismatched scales may agree in these digits."""
    return f"2^{bits(scale):.6f}"


def bounded(scale: Fraction, limit: int = EXACT_SCALE_BITS) -> Fraction:
    """The scale itself, or if its fraction has outgrown the limit, the nearest dyadic one of `KEPT_SCALE_BITS`."""
    size = scale.numerator.bit_length(), scale.denominator.bit_length()
    if max(size) <= limit:
        return scale
    unit = Fraction(2) ** (KEPT_SCALE_BITS - size[0] + size[1])
    return round(scale * unit) / unit


def checked(params: ParameterSet, kind: CiphertextType) -> CiphertextType:
    """The type, whose scale must fit the modulus of its level."""
    kind = kind._replace(scale=bounded(kind.scale))
    if kind.scale < 1:
        raise LatticeError(
            "scale_mismatch", f"The scale would be {text(kind.scale)}, less than 1, at level {kind.level}."
        )
    modulus = _modulus(params, kind.level)
    if kind.scale >= modulus:
        raise LatticeError(
            "level_exhausted",
            f"A scale of {text(kind.scale)} exceeds the modulus 2^{log2(modulus):.1f} of level {kind.level}.",
        )
    return kind


@lru_cache(maxsize=1024)
def _modulus(params: ParameterSet, level: int) -> int:
    return prod(params.q_moduli(level))


def add(x: CiphertextType, y: CiphertextType) -> CiphertextType:
    """Sum or difference: the same level and the same scale; 2 and 3 components mix."""
    _same_level(x.level, y.level)
    _same_scale(x.scale, y.scale)
    return x._replace(components=max(x.components, y.components), encoding=_sum_encoding(x.encoding, y.encoding))


def add_plain(x: CiphertextType, plain: PlaintextType) -> CiphertextType:
    """Ciphertext plus plaintext."""
    _single(plain)
    _same_level(x.level, plain.level)
    _same_scale(x.scale, plain.scale)
    return x._replace(encoding=_sum_encoding(x.encoding, plain.encoding))


def multiply_plain(params: ParameterSet, x: CiphertextType, plain: PlaintextType) -> CiphertextType:
    """Ciphertext times plaintext: scales multiply."""
    _single(plain)
    return _times_plain(params, x, plain)


def _times_plain(params: ParameterSet, x: CiphertextType, plain: PlaintextType) -> CiphertextType:
    _same_level(x.level, plain.level)
    encoding = _product_encoding(x.encoding, plain.encoding)
    return checked(params, x._replace(scale=x.scale * plain.scale, encoding=encoding))


def multiply_constant(params: ParameterSet, x: CiphertextType, scale: Fraction) -> CiphertextType:
    """Ciphertext times a real number that is rounded at `scale`."""
    return checked(params, x._replace(scale=x.scale * scale))


def add_constant(x: CiphertextType) -> CiphertextType:
    """Ciphertext plus a real number in every slot."""
    if x.encoding is Encoding.COEFFICIENTS:
        raise LatticeError("scale_mismatch", "A constant is added to slots; this ciphertext holds coefficients.")
    return x


def multiply(params: ParameterSet, x: CiphertextType, y: CiphertextType) -> CiphertextType:
    """Tensor product: three components, scales multiply."""
    _same_level(x.level, y.level)
    _components(x, 2)
    _components(y, 2)
    encoding = _product_encoding(x.encoding, y.encoding)
    return checked(params, CiphertextType(x.level, x.scale * y.scale, 3, encoding))


def relinearise(x: CiphertextType) -> CiphertextType:
    """Back to two components."""
    _components(x, 3)
    return x._replace(components=2)


def rescale(params: ParameterSet, x: CiphertextType) -> CiphertextType:
    """Drop the level's group of primes and divide the scale by their product."""
    if x.level < 1:
        raise LatticeError("level_exhausted", "A ciphertext at level 0 has no prime left to rescale by.")
    return checked(params, x._replace(level=x.level - 1, scale=x.scale / prod(params.levels[x.level - 1])))


def drop(params: ParameterSet, x: CiphertextType, level: int) -> CiphertextType:
    """Forget the primes above `level`; value and scale stay."""
    if not 0 <= level <= x.level:
        raise LatticeError("level_mismatch", f"A ciphertext at level {x.level} cannot be dropped to level {level}.")
    return checked(params, x._replace(level=level))


def settle(x: CiphertextType) -> CiphertextType:
    """The same with a scale of a short fraction; see `SETTLED_SCALE_BITS`."""
    return x._replace(scale=bounded(x.scale, SETTLED_SCALE_BITS))


def rotate(x: CiphertextType) -> CiphertextType:
    """Any automorphism: two components, and slots (of which a constant is a case)."""
    _components(x, 2)
    if x.encoding is Encoding.COEFFICIENTS:
        raise LatticeError("scale_mismatch", "A rotation moves slots; this ciphertext holds coefficients.")
    return x


def matrix(params: ParameterSet, inputs: Sequence[CiphertextType], diagonals: PlaintextType) -> CiphertextType:
    """Matrix–vector products with extended diagonals of the ciphertexts' level."""
    if not diagonals.extended:
        raise LatticeError(
            "level_mismatch", "The diagonals of a matrix must be encoded over the special primes too; these are not."
        )
    if not diagonals.members or diagonals.period or diagonals.encoding is Encoding.COEFFICIENTS:
        raise LatticeError("circuit_invalid", "A matrix is a list of diagonals, in slots.")
    x = _alike(inputs)
    _same_level(x.level, diagonals.level)
    return checked(params, rotate(x)._replace(scale=x.scale * diagonals.scale, encoding=Encoding.SLOTS))


def sum_plain(params: ParameterSet, inputs: Sequence[CiphertextType], plain: PlaintextType) -> CiphertextType:
    """Sums of products of ciphertexts and plaintexts; every ciphertext has the same type."""
    _not_extended(plain)
    if not plain.members or plain.period:
        raise LatticeError("circuit_invalid", "A sum of products takes a list of plaintexts, stored in full.")
    return _times_plain(params, _alike(inputs), plain)


def sum_periodic(
    params: ParameterSet, inputs: Sequence[CiphertextType], plain: PlaintextType, outs: int
) -> CiphertextType:
    """The same with a matrix of plaintexts that repeat, one for each result and input."""
    _not_extended(plain)
    x = _alike(inputs)
    if not plain.period or outs * len(inputs) != plain.members:
        message = f"{outs} results of {len(inputs)} inputs take so many repeating plaintexts, not {plain.members}."
        raise LatticeError("circuit_invalid", message)
    return _times_plain(params, x, plain)


def check_plaintexts(params: ParameterSet, plain: PlaintextType) -> None:
    """What a declaration of weights may say."""
    wrong = ""
    if plain.period & (plain.period - 1) or not 0 <= plain.period <= params.slots:
        wrong = f"a period of {plain.period} slots of {params.slots}"
    elif plain.period and (plain.extended or not plain.members):
        wrong = "a repeating plaintext that is extended, or alone"
    elif plain.period > 1 and plain.encoding is not Encoding.SLOTS:
        wrong = f"a period of {plain.period} and no slots"
    elif plain.extended and not (plain.members and params.special):
        wrong = "an extended plaintext that is no list of diagonals, or no special primes to extend to"
    if wrong:
        raise LatticeError("circuit_invalid", f"Plaintexts are declared with {wrong}.")


def _alike(inputs: Sequence[CiphertextType]) -> CiphertextType:
    if not inputs:
        raise LatticeError("circuit_invalid", "A product of several ciphertexts takes at least one.")
    for other in inputs[1:]:
        _same_level(inputs[0].level, other.level)
        _same_scale(inputs[0].scale, other.scale)
        _components(other, inputs[0].components)
        if other.encoding is not inputs[0].encoding:
            raise LatticeError("scale_mismatch", f"Values encoded as {other.encoding} and {inputs[0].encoding} meet.")
    return inputs[0]


def _sum_encoding(x: Encoding, y: Encoding) -> Encoding:
    if x is y:
        return x
    if {x, y} == {Encoding.SLOTS, Encoding.CONSTANT}:
        return Encoding.SLOTS
    raise LatticeError("scale_mismatch", f"Values encoded as {x} and as {y} cannot be added.")


def _product_encoding(x: Encoding, y: Encoding) -> Encoding:
    if x is y:
        return x
    if Encoding.CONSTANT in (x, y):
        return y if x is Encoding.CONSTANT else x
    raise LatticeError("scale_mismatch", f"Values encoded as {x} and as {y} cannot be multiplied.")


def _same_level(x: int, y: int) -> None:
    if x != y:
        raise LatticeError("level_mismatch", f"One operand is at level {x}, the other at level {y}.")


def _same_scale(x: Fraction, y: Fraction) -> None:
    if x != y:
        ratio = bits(x) - bits(y)
        raise LatticeError(
            "scale_mismatch", f"One operand has the scale {text(x)}, the other {text(y)} (ratio 2^{ratio:.3e})."
        )


def _components(x: CiphertextType, wanted: int) -> None:
    if x.components != wanted:
        do = "Relinearise it first." if x.components == 3 else "There is nothing to relinearise."
        raise LatticeError("components_mismatch", f"The ciphertext has {x.components} components, not {wanted}. {do}")


def _single(plain: PlaintextType) -> None:
    _not_extended(plain)
    if plain.members or plain.period:
        raise LatticeError("circuit_invalid", "One plaintext is needed; this is a list of them.")


def _not_extended(plain: PlaintextType) -> None:
    if plain.extended:
        raise LatticeError("level_mismatch", "A plaintext extended by the special primes serves matrix products only.")
