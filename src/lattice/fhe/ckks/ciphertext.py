"""Typed plaintexts and ciphertexts. m ≈ c0 + c1·s (+ c2·s² before relinearisation), every component in NTT form.

Level and scale are part of the value and exact; whoever combines two values checks them with the functions here, so
that a mismatch is a typed error with the numbers in it and never a wrong result.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ring.modulus import Residues


class Encoding(StrEnum):
    """What the coefficients of a plaintext mean."""

    SLOTS = "slots"
    COEFFICIENTS = "coefficients"
    CONSTANT = "constant"


@dataclass(frozen=True, eq=False)
class Plaintext:
    """An encoded polynomial, public."""

    params_id: str
    level: int
    scale: Fraction
    poly: Residues = field(repr=False)
    """`[limbs, N]`, NTT form."""
    encoding: Encoding = Encoding.SLOTS


@dataclass(frozen=True, eq=False)
class Ciphertext:
    """Two components, or three before relinearisation."""

    params_id: str
    level: int
    scale: Fraction
    components: Residues = field(repr=False)
    """`[components, limbs, N]`, NTT form."""
    encoding: Encoding = Encoding.SLOTS


def check_shape(value: Plaintext | Ciphertext, params: ParameterSet) -> None:
    """The value belongs to `params` and its tensor has the form that its level says."""
    if value.params_id != params.id:
        raise LatticeError("parameters_mismatch", f"The value has parameters {value.params_id}, not {params.id}.")
    limbs = (len(params.q_moduli(value.level)), params.n)
    shape = value.poly.shape if isinstance(value, Plaintext) else value.components.shape
    wanted = [limbs] if isinstance(value, Plaintext) else [(2, *limbs), (3, *limbs)]
    if shape not in wanted:
        raise LatticeError("parameters_mismatch", f"A tensor of shape {shape} is not one of level {value.level}.")


def check_same_parameters(x: Plaintext | Ciphertext, y: Plaintext | Ciphertext) -> None:
    """Both belong to the same parameters."""
    if x.params_id != y.params_id:
        raise LatticeError("parameters_mismatch", f"One value has parameters {x.params_id}, the other {y.params_id}.")


def check_same_level(x: Plaintext | Ciphertext, y: Plaintext | Ciphertext) -> None:
    """Both are at the same level."""
    if x.level != y.level:
        raise LatticeError(
            "level_mismatch",
            f"One value is at level {x.level}, the other at {y.level}.",
            details={"levels": [x.level, y.level]},
        )


def check_same_scale(x: Plaintext | Ciphertext, y: Plaintext | Ciphertext) -> None:
    """Both have the same exact scale."""
    if x.scale != y.scale:
        ratio = float(x.scale / y.scale)
        raise LatticeError(
            "scale_mismatch",
            f"One value has the scale {show_scale(x.scale)}, the other {show_scale(y.scale)} (ratio {ratio:.9g}).",
        )


def check_addable(x: Plaintext | Ciphertext, y: Plaintext | Ciphertext) -> None:
    """Parameters, level, scale and encoding agree."""
    check_same_parameters(x, y)
    check_same_level(x, y)
    check_same_scale(x, y)
    if x.encoding is not y.encoding:
        raise LatticeError("scale_mismatch", f"One value is encoded as {x.encoding}, the other as {y.encoding}.")


def show_scale(scale: Fraction) -> str:
    """A scale for an error message."""
    from lattice.fhe.ckks.security import log2_product

    return f"2^{log2_product([scale.numerator]) - log2_product([scale.denominator]):.6f}"
