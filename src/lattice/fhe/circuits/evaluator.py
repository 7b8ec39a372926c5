"""The evaluator: arithmetic on ciphertexts with public keys only. It never sees a secret, and no method takes one.

Levels and scales are exact and checked before anything is computed; a mismatch is a typed error with the numbers.
Simple operations do one thing (a product is not rescaled); circuits (`matrix_vector`, `polynomial`) end rescaled.
Plaintext operands may be numbers or arrays: they are encoded at the level and scale that fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import ArrayLike

from lattice.core.errors import LatticeError
from lattice.fhe.circuits import polynomial as series_of
from lattice.fhe.circuits.matrix import Goal, Layout
from lattice.fhe.circuits.polynomial import UNIT, Series
from lattice.fhe.circuits.prepared import PreparedMatrix, prepare_matrix
from lattice.fhe.circuits.rotations import mask
from lattice.fhe.circuits.sums import sum_rotations, sum_stages
from lattice.fhe.ckks.ciphertext import Ciphertext, Encoding, Plaintext
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.hal import backend as find_backend
from lattice.fhe.hal import interpreter, polynomial
from lattice.fhe.hal.backend import Backend
from lattice.fhe.hal.operations import KeySource, Operations
from lattice.fhe.hal.program import Program
from lattice.fhe.hal.weights import AnyPlaintext


class Evaluator:
    """Computes on ciphertexts of one set of parameters with one client's evaluation keys."""

    def __init__(
        self, params: ParameterSet, evaluation_keys: KeySource | None = None, backend: Backend | None = None
    ) -> None:
        self.params = params
        self.backend = backend or find_backend()
        self.encoder = Encoder(params, self.backend)
        self._on = Operations(params, evaluation_keys, self.backend)

    def __repr__(self) -> str:
        return f"Evaluator({self.params.id}, backend={self.backend.name})"

    # --- sums and products --------------------------------------------------------------------------------

    def add(self, x: Ciphertext, y: Ciphertext) -> Ciphertext:
        """x + y, of equal level and scale."""
        return self._on.add(x, y)

    def subtract(self, x: Ciphertext, y: Ciphertext) -> Ciphertext:
        """x − y, of equal level and scale."""
        return self._on.subtract(x, y)

    def negate(self, x: Ciphertext) -> Ciphertext:
        """−x."""
        return self._on.negate(x)

    def add_plain(self, x: Ciphertext, plain: Plaintext | ArrayLike) -> Ciphertext:
        """x + plain. Values are encoded at x's level and scale; one real number goes into every slot."""
        if isinstance(plain, Plaintext):
            return self._on.add_plain(x, plain)
        if _is_real_number(plain):
            return self._on.add_constant(x, float(np.asarray(plain)))
        encoded = self.encoder.encode(plain, level=x.level, scale=x.scale, encoding=_encoding_beside(x))
        return self._on.add_plain(x, encoded)

    def multiply_plain(
        self, x: Ciphertext, plain: Plaintext | ArrayLike, scale: Fraction | int | None = None
    ) -> Ciphertext:
        """x ⊙ plain, not rescaled. Values are encoded at `scale`, or else at what rescaling divides by."""
        if isinstance(plain, Plaintext):
            return self._on.multiply_plain(x, plain)
        exact = Fraction(scale) if scale else self.step(x.level) if x.level else self.params.scale
        if _is_real_number(plain):
            return self._on.multiply_constant(x, float(np.asarray(plain)), exact)
        encoded = self.encoder.encode(plain, level=x.level, scale=exact, encoding=_encoding_beside(x))
        return self._on.multiply_plain(x, encoded)

    def multiply(self, x: Ciphertext, y: Ciphertext, *, relinearise: bool = True) -> Ciphertext:
        """x ⊙ y, not rescaled; three components if not relinearised."""
        product = self._on.multiply(x, y)
        return self._on.relinearise(product) if relinearise else product

    def square(self, x: Ciphertext) -> Ciphertext:
        """x ⊙ x, relinearised, not rescaled."""
        return self.multiply(x, x)

    def relinearise(self, x: Ciphertext) -> Ciphertext:
        """Three components to two."""
        return self._on.relinearise(x)

    # --- levels and scales --------------------------------------------------------------------------------

    def step(self, level: int) -> Fraction:
        """What rescaling at `level` divides a scale by."""
        return Fraction(prod(self.params.dropped(level)))

    def rescale(self, x: Ciphertext) -> Ciphertext:
        """One level down, the scale divided by the dropped primes exactly."""
        return self._on.rescale(x)

    def drop(self, x: Ciphertext, level: int) -> Ciphertext:
        """To a lower level, the scale kept."""
        return self._on.drop(x, level)

    def adjust(self, x: Ciphertext, level: int, scale: Fraction | int) -> Ciphertext:
        """The same values at a lower level and exactly this scale: one multiplication by 1, one rescale."""
        if level >= x.level:
            raise LatticeError("level_exhausted", f"Adjusting to level {level} takes a level; x is at {x.level}.")
        at = self._on.drop(x, level + 1)
        return self._on.rescale(self._on.multiply_constant(at, 1.0, Fraction(scale) * self.step(at.level) / at.scale))

    # --- rotations ----------------------------------------------------------------------------------------

    def rotate(self, x: Ciphertext, steps: int) -> Ciphertext:
        """Slots turned left by `steps` (right if negative)."""
        return self._on.rotate(x, steps)

    def rotate_many(self, x: Ciphertext, steps: Sequence[int]) -> list[Ciphertext]:
        """Several rotations of one ciphertext, hoisted: the bits of `rotate`, most of the work done once."""
        return self._on.rotate_hoisted(x, steps)

    def conjugate(self, x: Ciphertext) -> Ciphertext:
        """Complex conjugation of every slot."""
        return self._on.conjugate(x)

    def sum_slots(self, x: Ciphertext, count: int | None = None, *, radix: int = 2) -> Ciphertext:
        """Slot i becomes the sum of slots i … i + count − 1 (all slots unless said); `count` is a power of two."""
        return self.inner_sum(x, count or self.params.slots, 1, radix=radix)

    def inner_sum(self, x: Ciphertext, count: int, stride: int, *, radix: int = 2) -> Ciphertext:
        """Slot i becomes the sum of `count` slots at distance `stride`: the fold of a batch, a power of two of them."""
        stages = sum_stages(count, stride=stride, radix=radix)
        sum_rotations(stages, self.params.slots)
        for stage in stages:
            x = self._on.rotate_sum(x, stage)
        return x

    def mask(self, x: Ciphertext, used: Iterable[int] | int) -> Ciphertext:
        """Zeros in all but the used slots; takes a level. An output must not carry what other slots are left with."""
        return self.rescale(self.multiply_plain(x, mask(self.params.slots, used)))

    # --- circuits -----------------------------------------------------------------------------------------

    def prepare_matrix(
        self, matrix: ArrayLike, *, level: int, layout: Layout = Layout.SPARSE, goal: Goal = Goal.TIME
    ) -> PreparedMatrix:
        """Plan and encode a matrix for `matrix_vector` at one level."""
        return prepare_matrix(self.params, matrix, level=level, layout=layout, goal=goal, encoder=self.encoder)

    def matrix_vector(self, matrix: PreparedMatrix, x: Ciphertext) -> Ciphertext:
        """The product by double-hoisted baby and giant steps, folded where the layout says so, rescaled."""
        (out,) = self._on.matrix([x], matrix.diagonals, matrix.plan.product)
        for stage in matrix.plan.fold:
            out = self._on.rotate_sum(out, stage)
        return self._on.rescale(out)

    def polynomial(
        self, x: Ciphertext, series: Series, scale: Fraction | int | None = None, *, split: int | None = None
    ) -> Ciphertext:
        """The series at x with exactly this scale (x's unless said), `series.depth` levels lower."""
        wanted = x.scale if scale is None else Fraction(scale)
        if series.interval != UNIT:
            x = self._to_unit(x, series.interval)
        if split is None:
            split = series_of.plan(self.params, self._on.type_of(x), series, wanted).split
        return polynomial.evaluate(self._on, x, series.coefficients, wanted, split)

    def chebyshev(
        self, x: Ciphertext, coefficients: Sequence[float], interval: tuple[float, float] = UNIT
    ) -> Ciphertext:
        """Σ coefficients[i]·T_i of x, which lies in the interval; the scale stays x's."""
        return self.polynomial(x, Series(tuple(coefficients), interval))

    def _to_unit(self, x: Ciphertext, interval: tuple[float, float]) -> Ciphertext:
        """(2x − a − b)/(b − a): one level, the scale kept."""
        a, b = interval
        scaled = self._on.multiply_constant(x, 2.0 / (b - a), self.step(x.level))
        return self._on.add_constant(self._on.rescale(scaled), -(a + b) / (b - a))

    def run(
        self, program: Program, inputs: Sequence[Ciphertext], weights: Sequence[AnyPlaintext] = ()
    ) -> list[Ciphertext]:
        """A whole program, handed to the backend whole."""
        if program.params.id != self.params.id:
            raise LatticeError(
                "parameters_mismatch", f"The program has parameters {program.params.id}, not {self.params.id}."
            )
        return interpreter.run(self.backend, program, inputs, self._on.keys, weights)


def _is_real_number(value: object) -> bool:
    array = np.asarray(value)
    return array.ndim == 0 and not np.iscomplexobj(array)


def _encoding_beside(x: Ciphertext) -> Encoding:
    """Arrays beside a constant are slots; beside coefficients, coefficients."""
    return Encoding.COEFFICIENTS if x.encoding is Encoding.COEFFICIENTS else Encoding.SLOTS
