"""The graph as it grows along a pipeline, and reading attributes of fitted objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.client_part import After, Before
from lattice.fhe.compiler.graph import Node, Operation, Real
from lattice.fhe.compiler.operations.sizes import bounded

INPUT = "features"


@dataclass
class Chain:
    """Nodes in a row, one after the other; `width` features go into the next one."""

    width: int
    nodes: list[Node] = field(default_factory=list)
    before: list[Before] = field(default_factory=list)
    after: list[After] = field(default_factory=list)
    last: str = INPUT

    def add(self, name: str, operation: Operation, *inputs: str) -> str:
        """One more node, on the last value or on those named."""
        count = sum(node.name == name or node.name.startswith(f"{name}/") for node in self.nodes)
        unique = f"{name}/{count + 1}" if count else name
        self.nodes.append(Node(unique, operation, inputs or (self.last,)))
        self.last = unique
        return unique

    @property
    def raw(self) -> bool:
        """Whether nothing has been done to the features yet, so that the client can still prepare them."""
        return not self.nodes


def numbers(model: Any, attribute: str) -> Real:
    """A fitted attribute as float64; a refusal names the object that is not fitted."""
    value = fitted(model, attribute)
    value = value.toarray() if hasattr(value, "toarray") else value
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise LatticeError("model_invalid", f"{type(model).__name__}.{attribute} holds no numbers.") from None
    bounded(array.size, f"{type(model).__name__}.{attribute}")
    if not np.all(np.isfinite(array)):
        raise LatticeError("model_invalid", f"{type(model).__name__}.{attribute} holds values that are not finite.")
    return array


def fitted(model: Any, attribute: str) -> Any:
    """An attribute that fitting makes."""
    try:
        return getattr(model, attribute)
    except AttributeError:
        name = type(model).__name__
        raise LatticeError("model_invalid", f"This {name} is not fitted: it has no {attribute}. Call fit.") from None


def labels(model: Any) -> tuple[str, ...]:
    """The names of the classes."""
    classes = fitted(model, "classes_")
    if isinstance(classes, list):
        raise LatticeError("model_unsupported", f"This {type(model).__name__} has several outputs.")
    return tuple(str(label) for label in classes)
