"""Encoded weights, public to the evaluator: lists of plaintexts in full, or, where slots repeat, by distinct values.

A plaintext whose slots repeat with period f is p(X^(N/2f)) for a polynomial p of degree below 2f, because ζ^(N/2f) is a
4f-th root of unity and 5 has the order f modulo 4f. Its evaluation at ψ^(2i+1) depends on i mod 2f only, and position j
of bit-reversed order holds i = bitrev(j): so the N evaluations are 2f numbers, each on a run of N/(2f) neighbours, and
these 2f are the transform of p itself in the ring of degree 2f. A real number in every slot is one number.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Encoding, Plaintext
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.hal.rules import PlaintextType
from lattice.fhe.ring.modulus import Residues


@dataclass(frozen=True, eq=False)
class Diagonals:
    """Several plaintexts of one level and scale: a matrix's diagonals if extended, the factors of a sum if not."""

    params_id: str
    level: int
    scale: Fraction
    polys: Residues = field(repr=False)
    """`[count, limbs of QP if extended, of Q if not, N]`, NTT form."""
    extended: bool = True
    encoding: Encoding = Encoding.SLOTS

    def check(self, params: ParameterSet) -> None:
        """They belong to `params` and have the form that their level says."""
        _check_parameters(self.params_id, params)
        moduli = moduli_of(params, self.level, extended=self.extended)
        if self.polys.ndim != 3 or self.polys.shape[1:] != (len(moduli), params.n):
            wanted = (len(moduli), params.n)
            raise LatticeError("parameters_mismatch", f"Plaintexts of shape {self.polys.shape} are not {wanted} each.")


@dataclass(frozen=True, eq=False)
class PeriodicWeights:
    """A matrix of plaintexts whose slots repeat."""

    params_id: str
    level: int
    scale: Fraction
    residues: Residues = field(repr=False)
    """`[outs, inputs, limbs, 2·period]`, in bit-reversed NTT order; the last is 1 for real numbers."""
    encoding: Encoding = Encoding.SLOTS

    @property
    def period(self) -> int:
        """In slots."""
        return max(int(self.residues.shape[-1]) // 2, 1)

    def check(self, params: ParameterSet) -> None:
        """They belong to `params` and have the form that their level says."""
        _check_parameters(self.params_id, params)
        shape, limbs = self.residues.shape, len(params.q_moduli(self.level))
        values = shape[-1] if len(shape) == 4 else 0
        if values == 0 or values & (values - 1) or values > params.n or shape[2] != limbs or 0 in shape:
            raise LatticeError("parameters_mismatch", f"A tensor of shape {shape} holds no repeating plaintexts here.")


AnyPlaintext = Plaintext | Diagonals | PeriodicWeights
"""What a program's weight may be."""


def tensor_of(value: AnyPlaintext) -> Residues:
    """The residues, whatever it is."""
    if isinstance(value, Diagonals):
        return value.polys
    return value.residues if isinstance(value, PeriodicWeights) else value.poly


def plaintext_type(value: AnyPlaintext) -> PlaintextType:
    """What the rules look at."""
    if isinstance(value, Diagonals):
        return PlaintextType(value.level, value.scale, value.extended, value.encoding, len(value.polys))
    if isinstance(value, PeriodicWeights):
        count = value.residues.shape[0] * value.residues.shape[1]
        return PlaintextType(value.level, value.scale, False, value.encoding, count, value.period)
    return PlaintextType(value.level, value.scale, encoding=value.encoding)


def moduli_of(params: ParameterSet, level: int, *, extended: bool) -> tuple[int, ...]:
    """The primes of plaintexts at a level."""
    return params.key_switch_context(level, level).moduli if extended else params.q_moduli(level)


def encode_diagonals(
    encoder: Encoder, values: ArrayLike, *, level: int, scale: Fraction | int, extended: bool
) -> Diagonals:
    """Real or complex slots `[count, slots]`."""
    params, exact = encoder.params, Fraction(scale)
    array = np.asarray(values)
    if array.ndim != 2:
        raise LatticeError("values_unencodable", f"Diagonals are a matrix [count, slots], not of shape {array.shape}.")
    moduli = moduli_of(params, level, extended=extended)
    if hasattr(encoder.transforms, "encode_slots"):
        return Diagonals(params.id, level, exact, encoder.encode_over(array, exact, moduli), extended)
    polys = np.empty((len(array), len(moduli), params.n), dtype=np.uint64)
    for start in range(0, len(array), _CHUNK):
        polys[start : start + _CHUNK] = encoder.encode_over(array[start : start + _CHUNK], exact, moduli)
    return Diagonals(params.id, level, exact, polys, extended)


_CHUNK = 64
"""Diagonals that numpy encodes at once: temporary arrays stay small."""


def encode_periodic(encoder: Encoder, values: ArrayLike, *, level: int, scale: Fraction | int) -> PeriodicWeights:
    """Real or complex slots `[outs, inputs, period]`; period 1 for real numbers."""
    params, exact = encoder.params, Fraction(scale)
    array = np.asarray(values)
    period = array.shape[-1] if array.ndim == 3 else 0
    if not 0 < period <= params.slots or period & (period - 1):
        message = f"Repeating weights have the shape [outs, inputs, power of two], not {array.shape}."
        raise LatticeError("values_unencodable", message)
    moduli = params.q_moduli(level)
    residues = np.ascontiguousarray(encoder.encode_repeating(array, exact, moduli))
    return PeriodicWeights(params.id, level, exact, residues)


def repeated(weights: Residues, n: int) -> NDArray[np.uint64]:
    """`[…, values]` to `[…, N]`: the plaintexts in full."""
    return np.repeat(weights, n // weights.shape[-1], axis=-1)


def _check_parameters(has: str, params: ParameterSet) -> None:
    if has != params.id:
        raise LatticeError("parameters_mismatch", f"The weights have other parameters, {has}.")
