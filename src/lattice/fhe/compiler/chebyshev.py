"""Fitting a function of one number by a Chebyshev series on an interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lattice.fhe.compiler.graph import Real
from lattice.fhe.compiler.operations import Series

Function = Callable[[Real], Real]
POINTS = 2048
"""Points at which the error is measured."""
BINS = 256
EVEN = 0.1
"""Weight of the whole interval beside the calibrated distribution: values that were never seen must stay bounded."""


class Fit(NamedTuple):
    """A series and how far it is from the function."""

    series: Series
    max_error: float
    """On the whole interval."""
    rms_error: float
    """Over the calibrated values."""


def interpolate(function: Function, degree: int, interval: tuple[float, float]) -> Series:
    """The polynomial of this degree, exactly, if the function is one."""
    low, high = interval
    t = np.cos(np.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    values = function((low + high + t * (high - low)) / 2)
    coefficients = np.polynomial.chebyshev.chebfit(t, values, degree)
    return Series(tuple(float(value) for value in coefficients), interval)


def fit(function: Function, degree: int, interval: tuple[float, float], kept: Real) -> Fit:
    """Least squares, weighted by how often values were seen, with the whole interval at `EVEN` of the weight."""
    low, high = interval
    t = np.cos(np.pi * (np.arange(POINTS) + 0.5) / POINTS)
    weight = np.sqrt(EVEN / POINTS + (1 - EVEN) * _density(kept, interval, t))
    values = function((low + high + t * (high - low)) / 2)
    basis = np.polynomial.chebyshev.chebvander(t, degree)
    solution, *_ = np.linalg.lstsq(basis * weight[:, None], values * weight, rcond=None)
    series = Series(tuple(float(value) for value in solution), interval)
    return measured(series, function, kept)


def measured(series: Series, function: Function, kept: Real) -> Fit:
    """The series with its errors."""
    low, high = series.interval
    x = np.linspace(low, high, POINTS)
    inside = np.clip(kept, low, high)
    error = series.forward(inside) - function(inside)
    return Fit(
        series,
        float(np.max(np.abs(series.forward(x) - function(x)))),
        float(np.sqrt(np.mean(error * error, dtype=float))),
    )


def _density(kept: Real, interval: tuple[float, float], t: Real) -> Real:
    """How the calibrated values fall on the points, as weights of sum one."""
    count, _ = np.histogram(kept, bins=BINS, range=interval)
    share = count / max(1, count.sum())
    place = np.clip(((t + 1) / 2 * BINS).astype(np.int64), 0, BINS - 1)
    points = np.bincount(place, minlength=BINS)
    return np.asarray(share[place] / np.maximum(1, points[place]), dtype=np.float64)
