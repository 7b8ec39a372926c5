"""Running a graph in the clear over real samples: which values occur where, which is what polynomials are fitted to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.client_steps import prepare
from lattice.fhe.compiler.graph import Graph, Real
from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.operations.sizes import size
from lattice.fhe.compiler.ranges import feature_ranges

LEVELS = (0.0, 0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)
"""The quantiles that are kept."""
KEPT = 1 << 15
"""Values of one tensor that are kept for fitting."""
MEMORY = 1 << 28
"""Bytes that the values of one batch may take."""


@dataclass(frozen=True, eq=False)
class Observed:
    """What calibration saw of one value."""

    low: float
    high: float
    quantiles: tuple[float, ...]
    """At `LEVELS`, of the values kept."""
    rms: float
    kept: Real
    """A sample of the values, the same for the same input."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Every value of the graph by name, and each feature that the client packs."""

    observed: dict[str, Observed]
    low: Real
    """`[features]`, before the client's steps."""
    high: Real
    ranges: tuple[Real, Real]
    """For each feature the range beyond which a client is warned: see `ranges`."""
    samples: int


def features(model: Imported, samples: ArrayLike) -> Real:
    """Samples `[batch, *feature_shape]` as float64; `calibration_invalid` says what is wrong with them."""
    try:
        array = np.asarray(samples, dtype=np.float64)
    except (TypeError, ValueError):
        raise LatticeError("calibration_invalid", "The samples are not an array of numbers.") from None
    wanted = model.feature_shape or model.graph.input_shape
    if array.ndim < 2 or len(array) == 0:
        raise LatticeError(
            "calibration_invalid", f"The samples have the shape {array.shape}; [samples, features] is due."
        )
    if array[0].size != size(wanted):
        raise LatticeError(
            "calibration_invalid",
            f"A sample has {array[0].size} features, and the model takes {size(wanted)} (shape {wanted}).",
        )
    if not np.all(np.isfinite(array)):
        row = int(np.argmin(np.isfinite(array.reshape(len(array), -1)).all(axis=1)))
        raise LatticeError("calibration_invalid", f"Sample {row} holds NaN or infinite values.")
    return array.reshape(len(array), *wanted)


def calibrate(model: Imported, samples: ArrayLike) -> Calibration:
    """Everything that the graph's values do on these samples, in batches of bounded memory."""
    given = features(model, samples)
    flat = given.reshape(len(given), -1)
    seen = observe(model.graph, prepare(model.before, given))
    return Calibration(seen, flat.min(axis=0), flat.max(axis=0), feature_ranges(given), len(given))


def observe(graph: Graph, packed: Real) -> dict[str, Observed]:
    """The values of a graph, on samples as they are packed."""
    shapes = graph.shapes()
    step = max(1, MEMORY // (8 * sum(size(shape) for shape in shapes.values())))
    parts: dict[str, list[Real]] = {name: [] for name in shapes}
    bounds = dict.fromkeys(shapes, (math.inf, -math.inf, 0.0))
    random = np.random.default_rng(0)  # which values are kept must not change from run to run
    for start in range(0, len(packed), step):
        batch = packed[start : start + step]
        share = -(-KEPT * len(batch) // len(packed))
        for name, value in graph.trace(batch).items():
            if not np.all(np.isfinite(value)):
                raise LatticeError(
                    "calibration_invalid",
                    f"The value {name!r} is NaN or infinite on a sample: outside what the model can compute.",
                )
            low, high, squares = bounds[name]
            bounds[name] = (
                min(low, float(value.min())),
                max(high, float(value.max())),
                squares + float(np.vdot(value, value)),
            )
            entries = value.ravel()
            parts[name].append(entries if entries.size <= share else entries[random.integers(0, entries.size, share)])
    return {
        name: _observed(np.concatenate(parts[name]), bounds[name], len(packed) * size(shapes[name])) for name in shapes
    }


def _observed(kept: Real, bounds: tuple[float, float, float], entries: int) -> Observed:
    low, high, squares = bounds
    quantiles = tuple(float(value) for value in np.quantile(kept, LEVELS))
    return Observed(low, high, quantiles, math.sqrt(squares / entries), kept)
