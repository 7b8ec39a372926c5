"""Nearest neighbours: one matrix of scores; who is nearest is decided by the client."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.client_part import Largest, Neighbours, Normalise
from lattice.fhe.compiler.graph import Graph, Node, Real
from lattice.fhe.compiler.importers.imported import Imported
from lattice.fhe.compiler.importers.sklearn.chain import INPUT, Chain, fitted, numbers
from lattice.fhe.compiler.operations import Dense
from lattice.fhe.compiler.operations.sizes import bounded, refusal

Metric = Literal["cosine", "dot", "euclidean"]


def similarity(database: Real, metric: Metric = "cosine", count: int = 10) -> Imported:
    """Scores of a query against every row of a database `[rows, features]`, and the `count` best of them."""
    rows = np.asarray(database, dtype=np.float64)
    if rows.ndim != 2 or 0 in rows.shape or not np.all(np.isfinite(rows)):
        raise LatticeError("model_invalid", "A database is a matrix [rows, features] of finite numbers.")
    if not 1 <= count <= len(rows):
        raise LatticeError("model_invalid", f"{count} of {len(rows)} rows cannot be returned.")
    layer, normalise = scores(rows, metric)
    graph = Graph(INPUT, (rows.shape[1],), (Node("scores", layer, (INPUT,)),), "scores", "similarity search")
    before = (Normalise(),) if normalise else ()
    return Imported(graph, before, (Largest(count),), (rows.shape[1],))


def scores(rows: Real, metric: Metric) -> tuple[Dense, bool]:
    """The layer whose largest result is the nearest row, and whether the client must normalise before."""
    bounded(rows.size, "A database")
    if metric == "dot":
        return Dense(rows, np.zeros(len(rows))), False
    squared = np.einsum("ij,ij->i", rows, rows)
    if metric == "cosine":
        length = np.sqrt(squared)
        return Dense(rows / np.where(length == 0, 1.0, length)[:, None], np.zeros(len(rows))), True
    # −‖x − d‖² = 2x·d − ‖d‖² − ‖x‖², and ‖x‖² is the same for every row.
    return Dense(2 * rows, -squared), False


def neighbours(chain: Chain, name: str, model: Any) -> None:
    """NearestNeighbors: indices and scores."""
    _scores(chain, name, model)
    chain.after.append(Largest(int(model.n_neighbors)))


def neighbour_classifier(chain: Chain, name: str, model: Any) -> None:
    """KNeighborsClassifier: the label that most of the nearest have."""
    if model.weights != "uniform":
        raise refusal(f"weights={model.weights!r} is not supported; 'uniform' is.")
    classes, members = fitted(model, "classes_"), np.asarray(fitted(model, "_y"))
    if isinstance(classes, list) or members.ndim != 1:
        raise refusal("several outputs are not supported.")
    _scores(chain, name, model)
    of_row = tuple(int(member) for member in members)
    chain.after.append(Neighbours(int(model.n_neighbors), of_row, tuple(str(label) for label in classes)))


def _scores(chain: Chain, name: str, model: Any) -> None:
    metric = fitted(model, "effective_metric_") if hasattr(model, "effective_metric_") else model.metric
    if metric == "minkowski" and float(model.p) == 2:
        metric = "euclidean"
    if metric not in ("euclidean", "cosine"):
        raise refusal(f"the metric {metric!r} is not supported; euclidean and cosine are.")
    layer, normalise = scores(numbers(model, "_fit_X"), metric)
    if normalise and not any(isinstance(step, Normalise) for step in chain.before):
        if not chain.raw:
            raise refusal("the cosine metric must come first: the client normalises before encrypting.")
        chain.before.append(Normalise())
    elif normalise and chain.nodes:
        raise refusal("the cosine metric must come first: the client normalises before encrypting.")
    chain.add(name, layer)
