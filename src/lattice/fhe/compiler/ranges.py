"""The range of each feature beyond which a client is warned: its own, or for the pixels of a picture that of all.

A pixel that was black in all calibration images may well be white, so pixels share one range. Columns of a table do
not, and a table can look like a picture: one-hot columns and counts have the same least value and the same width. What
they lack is that neighbours go together and take many values.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.compiler.graph import Real

ALIKE = 0.9
"""The share of pixels that have exactly the same least value."""
SHADES = 3
"""Values that most pixels take at the least: flags take two."""
TOGETHER = 0.2
"""Mean correlation of neighbouring pixels, at the least: 0.6 in MNIST, 0.3 in 8×8 digits, about 0 in columns."""
LOOKED_AT = 2000
"""Samples, spread over all."""


def feature_ranges(samples: Real) -> tuple[Real, Real]:
    """`[features]` twice, of samples `[count, *feature_shape]`."""
    low, high = samples.min(axis=0), samples.max(axis=0)
    shape = low.shape
    if len(shape) > 1 or are_pixels(samples):
        axes = tuple(range(1 if len(shape) > 2 else 0, len(shape)))
        low = np.broadcast_to(low.min(axis=axes, keepdims=True), shape)
        high = np.broadcast_to(high.max(axis=axes, keepdims=True), shape)
    return low.ravel().copy(), high.ravel().copy()


def are_pixels(samples: Real) -> bool:
    """Whether flat features `[count, features]` are a picture: nine of ten have exactly the same least value, half of
    those that change at all change at least half as much as all together, most take several values, and neighbours go
    together."""
    low, high = samples.min(axis=0), samples.max(axis=0)
    width, whole = high - low, float(high.max() - low.min())
    changing = width > 0
    alike = np.unique(low, return_counts=True)[1].max() >= ALIKE * low.size
    as_wide = np.count_nonzero(2 * width >= whole) * 2 >= np.count_nonzero(changing) > 0
    if not (alike and as_wide):
        return False
    some = samples[:: -(-len(samples) // LOOKED_AT)]
    return _shades(some[:, changing]) and _neighbours_go_together(some, changing)


def _shades(columns: Real) -> bool:
    """Whether most columns take several values."""
    ordered = np.sort(columns, axis=0)
    kinds = 1 + np.count_nonzero(np.diff(ordered, axis=0), axis=0)
    return bool(np.median(kinds) >= SHADES)


def _neighbours_go_together(samples: Real, changing: NDArray[np.bool_]) -> bool:
    pairs = np.flatnonzero(changing[:-1] & changing[1:])
    centred = samples - samples.mean(axis=0)
    deviation = np.sqrt((centred**2).mean(axis=0))
    pairs = pairs[deviation[pairs] * deviation[pairs + 1] > 0]
    if not len(pairs):
        return False
    together = (centred[:, pairs] * centred[:, pairs + 1]).mean(axis=0) / (deviation[pairs] * deviation[pairs + 1])
    return bool(together.mean() >= TOGETHER)
