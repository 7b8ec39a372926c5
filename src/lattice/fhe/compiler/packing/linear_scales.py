"""How a linear model's features and weights share one modulus, and the error that follows.

A result carries the scale Δx·Δw, and Δx·Δw·|y| must stay below half the modulus. The encryption's error counts with
|w|·σ/Δx, the rounding of the weights with |x|/(Δw·√12); what is left to choose is how the bits are shared between them.
"""

from __future__ import annotations

from math import floor, hypot, log2, prod, sqrt
from typing import NamedTuple

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler.client_part import ToUnit
from lattice.fhe.compiler.graph import Real
from lattice.fhe.compiler.packing.affine import Affine

MARGIN_BITS = 1
"""Results may be twice as large as the calibrated ranges allow, or as `largest` says, before they wrap around."""
FLOOD_BITS = 22
"""Blinding noise lies at 2^−22 of a result: see `lattice.fhe.coefficients`."""
MAX_ERROR = 2.0**-6


class Scales(NamedTuple):
    """log2 of the scales of features and weights, and the error that they lead to."""

    features: int
    weights: int
    error: float
    """Standard deviation of a result's error."""

    @property
    def result(self) -> int:
        """log2 of a result's scale."""
        return self.features + self.weights


def to_unit(low: Real, high: Real) -> ToUnit:
    """The step that maps the calibrated ranges into [−1, 1]; half of the interval is used at the least."""
    if low.shape != high.shape or not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
        raise LatticeError("model_unsupported", "The calibrated ranges must be finite, one for each feature.")
    middle, half = (low + high) / 2, (high - low) / 2
    exponents = -np.ceil(np.log2(np.where(half > 0, half, 1.0))).astype(np.int64)
    return ToUnit(tuple(middle.tolist()), tuple(exponents.tolist()))


def choose_scales(params: ParameterSet, model: Affine, length: float, largest: float | None = None) -> Scales:
    """For features in [−1, 1], and results of at most `largest` where calibration has seen that: features are
    correlated, and the corners of their ranges are far from anything real. `length` is the norm of the weights that a
    ciphertext's error meets: every coefficient's error goes into every result."""
    reach = max(min(model.reach, largest or model.reach), 1.0)
    total = floor(log2(prod(params.q_moduli(0)) / 2 / reach)) - MARGIN_BITS
    sigma = sqrt(params.error_eta / 2)
    encryption = sigma * max(length, 2.0**-20)
    rounding = sqrt(model.features / 12.0 / 3.0)
    features = round((total + log2(encryption / rounding)) / 2)
    features = min(max(features, 1), total - 1)
    weights = total - features
    error = hypot(encryption * 2.0**-features, rounding * 2.0**-weights, 2.0**-FLOOD_BITS / sqrt(3.0))
    if total < 2 or error > max(reach, 1.0) * MAX_ERROR:
        raise LatticeError(
            "model_unsupported",
            f"One modulus of {total + MARGIN_BITS:d} bits cannot hold results of up to {reach:.3g} with any precision.",
        )
    return Scales(features, weights, error)
