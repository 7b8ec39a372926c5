"""Weights that are not finite, or so large that nothing could be encrypted, are refused by name."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.graph import Graph

LARGEST_WEIGHT = 1e18


def validate(graph: Graph) -> Graph:
    """The graph itself, if its shapes fit and every number in it is finite."""
    graph.shapes()
    for node in graph.nodes:
        for array in _arrays(node.operation):
            if not np.all(np.isfinite(array)):
                raise LatticeError("model_invalid", f"The weights of {node.name!r} hold NaN or infinite values.")
            if array.size and np.max(np.abs(array)) > LARGEST_WEIGHT:
                raise LatticeError("model_invalid", f"The weights of {node.name!r} are larger than {LARGEST_WEIGHT:g}.")
    return graph


def _arrays(thing: Any) -> list[Any]:
    """The arrays of numbers in an operation."""
    if isinstance(thing, np.ndarray):
        return [thing] if thing.dtype.kind == "f" else []
    if isinstance(thing, tuple):
        return [array for part in thing for array in _arrays(part)]
    if is_dataclass(thing):
        return [array for field in fields(thing) for array in _arrays(getattr(thing, field.name))]
    return []
