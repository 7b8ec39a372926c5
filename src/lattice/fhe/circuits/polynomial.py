"""Functions as Chebyshev series on an interval, with the error that was made; and the plan of their evaluation.

A function f on [a, b] is interpolated at Chebyshev nodes; `fit` compares with a far finer interpolation: the tail of
its coefficients bounds the truncation error of every function that the fine one represents (Trefethen, Approximation
Theory and Approximation Practice, chapter 8), and dense sampling catches functions that it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.hal import polynomial
from lattice.fhe.hal.polynomial import TypeArithmetic, depth, evaluate, plan_split
from lattice.fhe.hal.rules import CiphertextType

Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]
UNIT = (-1.0, 1.0)
NEGLIGIBLE = 2.0**-49
"""Coefficients below this part of the largest are rounding of the fit (an odd function's even ones): they become 0."""


class Series(NamedTuple):
    """Σ coefficients[i]·T_i(y), y = (2x − a − b)/(b − a)."""

    coefficients: tuple[float, ...]
    interval: tuple[float, float] = UNIT
    error: float = 0.0
    """Bound on |f − series| on the interval, where the series came from `fit`."""

    @property
    def degree(self) -> int:
        """The highest index."""
        return len(self.coefficients) - 1

    @property
    def depth(self) -> int:
        """Levels that its evaluation takes; one more where the interval is not [−1, 1]."""
        return depth(self.degree) + (self.interval != UNIT)

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The series in the clear."""
        a, b = self.interval
        return np.asarray(chebyshev.chebval((2 * x - a - b) / (b - a), self.coefficients), dtype=np.float64)


class PolynomialPlan(NamedTuple):
    """How a series is evaluated on a ciphertext of one type."""

    split: int
    relinearisations: int
    products: int
    output: CiphertextType
    relinearised_at: frozenset[int]
    """Levels at which a relinearisation key is used; one cut to the highest serves all."""


def fit(function: Function, degree: int, interval: tuple[float, float] = UNIT) -> Series:
    """The interpolation of this degree and its error."""
    _check_interval(interval)
    if not 1 <= degree <= polynomial.MAX_DEGREE:
        raise LatticeError("circuit_invalid", f"Degree {degree} is outside 1 … {polynomial.MAX_DEGREE}.")
    coefficients = _interpolate(function, degree, interval)
    coefficients[np.abs(coefficients) < NEGLIGIBLE * np.abs(coefficients).max()] = 0.0
    series = Series(tuple(float(c) for c in coefficients), interval)
    return series._replace(error=_error(function, series))


def fit_within(function: Function, error: float, interval: tuple[float, float] = UNIT, max_degree: int = 511) -> Series:
    """The smallest degree 2^k − 1 (each depth's best) whose error is at most `error`."""
    degree, found = 1, None
    while degree <= max_degree:
        found = fit(function, degree, interval)
        if found.error <= error:
            return found
        degree = 2 * degree + 1
    has = f"{found.error:.3g}" if found else "none"
    raise LatticeError(
        "circuit_invalid", f"No degree up to {max_degree} reaches an error of {error:.3g} (best: {has})."
    )


def from_powers(coefficients: Sequence[float]) -> Series:
    """Σ coefficients[i]·x^i on [−1, 1] in the Chebyshev basis."""
    return Series(tuple(float(c) for c in chebyshev.poly2cheb(np.asarray(coefficients, dtype=np.float64))))


@lru_cache(maxsize=256)
def plan(params: ParameterSet, x: CiphertextType, series: Series, scale: Fraction) -> PolynomialPlan:
    """The cheapest split, what it costs, and the keys' levels, for an argument already on [−1, 1]."""
    split = plan_split(params, x, series.coefficients, scale).split
    counter = TypeArithmetic(params)
    output = evaluate(counter, x, series.coefficients, scale, split)
    levels = frozenset(counter.relinearised_at)
    return PolynomialPlan(split, counter.relinearisations, counter.products, output, levels)


def _interpolate(function: Function, degree: int, interval: tuple[float, float]) -> NDArray[np.float64]:
    count = degree + 1
    angles = np.pi * (np.arange(count) + 0.5) / count
    values = _sampled(function, np.cos(angles), interval)
    orders = np.cos(np.outer(np.arange(count), angles))
    coefficients: NDArray[np.float64] = 2.0 / count * orders @ values
    coefficients[0] /= 2.0
    return coefficients


def _error(function: Function, series: Series) -> float:
    fine = _interpolate(function, min(4 * series.degree + 64, 2048), series.interval)
    padded = np.zeros(len(fine))
    shared = min(len(fine), len(series.coefficients))
    padded[:shared] = series.coefficients[:shared]
    bound = float(np.abs(fine - padded).sum())
    y = np.cos(np.linspace(0.0, np.pi, 16 * series.degree + 1001))
    seen = np.abs(_sampled(function, y, series.interval) - chebyshev.chebval(y, series.coefficients)).max()
    return max(bound, float(seen))


def _sampled(function: Function, y: NDArray[np.float64], interval: tuple[float, float]) -> NDArray[np.float64]:
    a, b = interval
    values = np.asarray(function((b - a) / 2 * y + (a + b) / 2), dtype=np.float64)
    if values.shape != y.shape or not np.isfinite(values).all():
        raise LatticeError("circuit_invalid", "The function does not give one finite number for each of its arguments.")
    return values


def _check_interval(interval: tuple[float, float]) -> None:
    a, b = interval
    if not (np.isfinite(a) and np.isfinite(b) and a < b):
        raise LatticeError("circuit_invalid", f"[{a}, {b}] is not an interval.")
