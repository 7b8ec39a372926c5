"""Scalers and projections: all are layers, and fold into the layer behind them."""

from __future__ import annotations

from typing import Any

import numpy as np

from lattice.fhe.compiler.client_part import Normalise
from lattice.fhe.compiler.importers.sklearn.chain import Chain, fitted, numbers
from lattice.fhe.compiler.operations import Affine, Dense, Matrix, Sparse
from lattice.fhe.compiler.operations.sizes import refusal


def standard(chain: Chain, name: str, model: Any) -> None:
    """StandardScaler: (x − mean)/scale."""
    ones = np.ones(chain.width)
    scale = 1 / numbers(model, "scale_") if fitted(model, "scale_") is not None else ones
    mean = numbers(model, "mean_") if model.with_mean else 0 * ones
    chain.add(name, Affine(scale, -mean * scale))


def robust(chain: Chain, name: str, model: Any) -> None:
    """RobustScaler: (x − center)/scale, either of which may be left out."""
    ones = np.ones(chain.width)
    scale = 1 / numbers(model, "scale_") if fitted(model, "scale_") is not None else ones
    center = numbers(model, "center_") if fitted(model, "center_") is not None else 0 * ones
    chain.add(name, Affine(scale, -center * scale))


def min_max(chain: Chain, name: str, model: Any) -> None:
    """MinMaxScaler: x·scale + min."""
    if model.clip:
        raise refusal("clip=True is no linear step; leave it out.")
    chain.add(name, Affine(numbers(model, "scale_"), numbers(model, "min_")))


def max_abs(chain: Chain, name: str, model: Any) -> None:
    """MaxAbsScaler: x/scale."""
    if getattr(model, "clip", False):
        raise refusal("clip=True is no linear step; leave it out.")
    chain.add(name, Affine(1 / numbers(model, "scale_"), np.zeros(())))


def normalizer(chain: Chain, name: str, model: Any) -> None:
    """Normalizer: the client divides each sample by its length."""
    if model.norm != "l2":
        raise refusal(f"the norm {model.norm!r} is not supported; l2 is.")
    if not chain.raw:
        raise refusal("it must come first: the client normalises before encrypting.")
    chain.before.append(Normalise())


def projection(chain: Chain, name: str, model: Any) -> None:
    """PCA and TruncatedSVD: (x − mean)·componentsᵀ, whitened if asked."""
    weight = numbers(model, "components_")
    mean = numbers(model, "mean_") if hasattr(model, "mean_") else np.zeros(chain.width)
    if getattr(model, "whiten", False):
        variance = numbers(model, "explained_variance_")
        weight = weight / np.sqrt(np.maximum(variance, np.finfo(np.float64).eps))[:, None]
    chain.add(name, Dense(weight, -weight @ mean))
    chain.width = len(weight)


def selection(chain: Chain, name: str, model: Any) -> None:
    """SelectKBest and VarianceThreshold: some of the features."""
    chosen = np.flatnonzero(np.asarray(model.get_support()))
    chain.add(name, Matrix(Sparse.gather(chosen.astype(np.int64), chain.width), (len(chosen),)))
    chain.width = len(chosen)
