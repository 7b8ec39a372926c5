"""Fitting a function of one number by a Chebyshev series on an interval."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.compiler.graph import Real
from lattice.fhe.compiler.operations import Series

Function = Callable[[Real], Real]
POINTS = 2048
"""Points at which the error is measured."""
BINS = 256
EVEN = 0.1
"""Weight of the whole interval beside the calibrated distribution: values that were never seen must stay bounded."""
BESIDE = 0.1
"""What an error beside the calibrated values counts, where the largest error among them is what matters."""
ROUNDS, NEARLY = 150, 1.01
"""Of Lawson's iteration, which ends sooner where the largest error is nearly all that the weighted mean is."""


class Fit(NamedTuple):
    """A series and how far it is from the function."""

    series: Series
    max_error: float
    """On the whole interval."""
    seen_error: float
    """The largest between the least and the greatest calibrated value."""
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


def fit_evenly(function: Function, degree: int, interval: tuple[float, float], kept: Real) -> Fit:
    """The least largest error over the calibrated range, the rest of the interval at `BESIDE` of the weight: for values
    that somebody reads one by one. Lawson's iteration: least squares, weights times errors, again."""
    low, high = interval
    count = max(POINTS // 4, 16 * degree)
    t = np.cos(np.pi * (np.arange(count) + 0.5) / count)
    x = (low + high + t * (high - low)) / 2
    seen = float(kept.min()), float(kept.max())
    best = evenly(np.polynomial.chebyshev.chebvander(t, degree), function(x), x, seen)
    return measured(Series(tuple(float(value) for value in best), interval), function, kept)


def evenly(basis: NDArray[np.floating[Any]], values: Real, x: Real, seen: tuple[float, float]) -> Real:
    """Coefficients of `basis` `[points, terms]` with the least largest distance from the values at points x, those
    outside of `seen` at `BESIDE` of the weight."""
    weight = np.where((x >= seen[0]) & (x <= seen[1]), 1.0, BESIDE)
    share, least, best = np.full(len(x), 1.0 / len(x)), np.inf, np.zeros(basis.shape[1])
    for _ in range(ROUNDS):
        root = np.sqrt(share) * weight
        solution, *_ = np.linalg.lstsq(basis * root[:, None], values * root, rcond=None)
        error = np.abs(basis @ solution - values) * weight
        if error.max() < least:
            least, best = float(error.max()), solution
        mean = float(share @ error)
        if mean == 0 or error.max() <= NEARLY * mean:
            break
        share = share * error / mean
    return np.asarray(best, dtype=np.float64)


def measured(series: Series, function: Function, kept: Real) -> Fit:
    """The series with its errors."""
    low, high = series.interval
    inside = np.clip(kept, low, high)
    error = series.forward(inside) - function(inside)
    ranges = np.linspace(low, high, POINTS), np.linspace(inside.min(), inside.max(), POINTS)
    largest, seen = (float(np.max(np.abs(series.forward(x) - function(x)))) for x in ranges)
    return Fit(
        series,
        max(largest, seen),
        seen,
        float(np.sqrt(np.mean(error * error, dtype=float))),
    )


def _density(kept: Real, interval: tuple[float, float], t: Real) -> Real:
    """How the calibrated values fall on the points, as weights of sum one."""
    count, _ = np.histogram(kept, bins=BINS, range=interval)
    share = count / max(1, count.sum())
    place = np.clip(((t + 1) / 2 * BINS).astype(np.int64), 0, BINS - 1)
    points = np.bincount(place, minlength=BINS)
    return np.asarray(share[place] / np.maximum(1, points[place]), dtype=np.float64)
