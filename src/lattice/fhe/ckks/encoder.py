"""Numbers to plaintext polynomials and back: slots, coefficients, constants.

A value v becomes the integer RNE(v·Δ): round half to even of the product in doubles, with Δ the nearest double to the
exact scale (powers of two are exact). Integers beyond 2^63 are taken apart into mantissa and exponent and reduced
exactly, so large scales lose nothing more than a double does. Constants are rounded exactly, as rationals. Values that
would wrap around the modulus are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Encoding, Plaintext, check_shape, show_scale
from lattice.fhe.ckks.embedding import to_coefficients, to_slots
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ring.modulus import Reals, Residues, mul, reduce_signed
from lattice.fhe.ring.ntt import NumpyTransforms, Transforms
from lattice.fhe.ring.rns import to_floats

SMALLEST_RING = 8
"""That every backend transforms."""
MAX_SCALE = 1 << 900
"""Leaves room for values of 2^100 in a double."""


def integral_residues(x: Reals, moduli: Sequence[int]) -> Residues:
    """Doubles with integer values, of any size, as residues: exact."""
    largest = float(np.max(np.abs(x), initial=0.0))
    if largest < 2.0**62:
        return reduce_signed(x.astype(np.int64), moduli)
    mantissa, exponent = np.frexp(x)
    whole = (mantissa * 2.0**53).astype(np.int64)
    shift = np.maximum(exponent - 53, 0)
    whole >>= np.minimum(np.maximum(53 - exponent, 0), 63).astype(np.int64)  # exact: x is an integer
    powers = [[pow(2, e, q) for e in range(int(shift.max()) + 1)] for q in moduli]
    factor = np.moveaxis(np.array(powers, dtype=np.uint64)[:, shift], 0, -2)
    return mul(reduce_signed(whole, moduli), factor, moduli)


class Encoder:
    """Encodes for one set of parameters. `transforms` is any backend; numpy unless given. One that has `encode_slots`
    does the whole way from slots, to the same bits."""

    def __init__(self, params: ParameterSet, transforms: Transforms | None = None) -> None:
        self.params = params
        self.transforms = transforms or NumpyTransforms()

    def encode(
        self,
        values: ArrayLike,
        *,
        level: int | None = None,
        scale: Fraction | int | None = None,
        encoding: Encoding = Encoding.SLOTS,
    ) -> Plaintext:
        """At most as many values as slots (or coefficients); the rest are zeros. A scalar fills every slot."""
        level = self.params.max_level if level is None else level
        exact = self.params.scale if scale is None else Fraction(scale)
        moduli = self.params.q_moduli(level)
        if encoding is Encoding.CONSTANT:
            poly = self.constant_over(complex(np.asarray(values).item()), exact, moduli)
        elif encoding is Encoding.SLOTS:
            poly = self.encode_over(values, exact, moduli)
        else:
            poly = self._finish(self._padded(values, self.params.n, np.float64), exact, moduli)
        return Plaintext(self.params.id, level, exact, poly, encoding)

    def encode_over(self, values: ArrayLike, scale: Fraction, moduli: Sequence[int]) -> Residues:
        """Slots `[…, count]` over any primes (for instance Q ∪ P), in NTT form `[…, limbs, N]`."""
        slots = self._padded(values, self.params.slots, np.complex128).astype(np.complex128, copy=False)
        if hasattr(self.transforms, "encode_slots") and scale < MAX_SCALE and slots.size and slots.shape[-1] >= 4:
            flat = slots.reshape(-1, slots.shape[-1])
            out, largest = self.transforms.encode_slots(flat, float(scale), tuple(moduli))
            self._check_room(largest, scale, moduli)
            if largest < 2.0**62:
                encoded: Residues = out.reshape(*slots.shape[:-1], *out.shape[1:])
                return encoded
        return self._finish(to_coefficients(slots), scale, moduli)

    def encode_repeating(self, values: NDArray[np.generic], scale: Fraction, moduli: Sequence[int]) -> Residues:
        """Slots `[…, f]` that repeat with the period f, as the distinct evaluations `[…, limbs, 2f]` in bit-reversed
        order; for f = 1 they are real numbers, `[…, limbs, 1]`. See `hal.weights`."""
        period = values.shape[-1]
        slots = self._padded(values, period, np.complex128).astype(np.complex128, copy=False)
        if period == 1:
            if slots.imag.any():
                raise LatticeError("values_unencodable", "A weight with the period 1 is a real number.")
            return self._rounded_residues(slots.real, scale, moduli)
        size = max(2 * period, SMALLEST_RING)
        coefficients = np.zeros((*slots.shape[:-1], size))
        coefficients[..., :: size // (2 * period)] = to_coefficients(slots)
        return self._finish(coefficients, scale, moduli)[..., :: size // (2 * period)]

    def constant(self, value: complex, scale: Fraction, moduli: Sequence[int]) -> tuple[int, ...]:
        """A real constant in every slot is one integer: its residues, for `mul_scalar`."""
        if value.imag:
            raise LatticeError("values_unencodable", "A complex constant is no scalar; encode it as a plaintext.")
        whole = self._rounded(value.real, scale, moduli)
        return tuple(whole % q for q in moduli)

    def constant_over(self, value: complex, scale: Fraction, moduli: Sequence[int]) -> Residues:
        """The same value in every slot: a + b·X^(N/2), because X^(N/2) is i in every slot."""
        real, imaginary = (self._rounded(part, scale, moduli) for part in (value.real, value.imag))
        coefficients = np.zeros((len(moduli), self.params.n), dtype=np.uint64)
        coefficients[:, 0] = [real % q for q in moduli]
        coefficients[:, self.params.n // 2] = [imaginary % q for q in moduli]
        return self.transforms.ntt(coefficients, tuple(moduli), self.params.n)

    def decode(self, plaintext: Plaintext, count: int | None = None) -> NDArray[np.complex128]:
        """The slots as complex numbers, all or the first `count`. Coefficients come back as they are."""
        check_shape(plaintext, self.params)
        return self.decode_poly(plaintext.poly, plaintext.level, plaintext.scale, plaintext.encoding)[..., :count]

    def decode_real(self, plaintext: Plaintext, count: int | None = None) -> Reals:
        """The real parts of `decode`."""
        return self.decode(plaintext, count).real.copy()

    def decode_poly(
        self, poly: Residues, level: int, scale: Fraction, encoding: Encoding = Encoding.SLOTS
    ) -> NDArray[np.complex128]:
        """Decode a bare polynomial in NTT form."""
        moduli = self.params.q_moduli(level)
        coefficients = to_floats(self.transforms.intt(poly, moduli, self.params.n), moduli) / float(scale)
        if encoding is Encoding.COEFFICIENTS:
            return coefficients.astype(np.complex128)
        return to_slots(coefficients)

    def _padded(self, values: ArrayLike, room: int, kind: type) -> NDArray[np.generic]:
        array = np.asarray(values)
        if array.ndim == 0:
            array = np.full(room, array) if room == self.params.slots else array[None]
        if array.shape[-1] > room:
            raise LatticeError(
                "values_unencodable", f"{array.shape[-1]} values were given and there is room for {room}."
            )
        if kind is np.float64 and np.iscomplexobj(array):
            raise LatticeError("values_unencodable", "Coefficients are real numbers.")
        try:
            array = array.astype(kind)
        except (TypeError, ValueError):
            raise LatticeError("values_unencodable", "The values are not numbers.") from None
        if not np.isfinite(array).all():
            raise LatticeError("values_unencodable", "A value is infinite or not a number.")
        out: NDArray[np.generic] = np.zeros((*array.shape[:-1], room), dtype=kind)
        out[..., : array.shape[-1]] = array
        return out

    def _finish(self, coefficients: NDArray[np.generic], scale: Fraction, moduli: Sequence[int]) -> Residues:
        moduli = tuple(moduli)
        residues = self._rounded_residues(coefficients, scale, moduli)
        return self.transforms.ntt(residues, moduli, residues.shape[-1])

    def _rounded_residues(self, x: NDArray[np.generic], scale: Fraction, moduli: Sequence[int]) -> Residues:
        if scale >= MAX_SCALE:
            raise LatticeError("values_unencodable", f"The scale {show_scale(scale)} is beyond what a double holds.")
        whole = np.rint(x.astype(np.float64, copy=False) * float(scale))
        largest = float(np.max(np.abs(whole), initial=0.0))
        self._check_room(largest, scale, moduli)
        return integral_residues(whole, moduli)

    def _rounded(self, value: float, scale: Fraction, moduli: Sequence[int]) -> int:
        if not np.isfinite(value):
            raise LatticeError("values_unencodable", "A value is infinite or not a number.")
        whole = round(Fraction(value) * scale)
        self._check_room(abs(whole), scale, moduli)
        return whole

    def _check_room(self, largest: float, scale: Fraction, moduli: Sequence[int]) -> None:
        if not largest < prod(moduli) // 2:
            bits = int(largest).bit_length() if np.isfinite(float(min(largest, 2**1023))) else 1024
            raise LatticeError(
                "values_unencodable",
                f"At scale {show_scale(scale)} the largest coefficient has {bits} bits; "
                f"the modulus has room for {prod(moduli).bit_length() - 1}.",
            )
