"""The compiler's front as one call: import, simplify, calibrate, fit. What it gives is ready to be packed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import ArrayLike

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.activations import Approximation, Budget, approximate
from lattice.fhe.compiler.calibrate import Calibration, calibrate, features
from lattice.fhe.compiler.client_steps import prepare
from lattice.fhe.compiler.graph import Graph
from lattice.fhe.compiler.importers import Imported, load
from lattice.fhe.compiler.operations import Activation, Composite, Power
from lattice.fhe.compiler.passes import lowered, simplify

FEW = 30
"""Fewer calibration samples than these are warned about."""


@dataclass(frozen=True, eq=False)
class Front:
    """A model ready for packing."""

    imported: Imported
    """As it was handed in."""
    model: Imported
    """Its graph has the operations that packing takes, and no other."""
    calibration: Calibration
    """Of the simplified graph; values are named as its nodes are."""
    approximation: Approximation
    warnings: tuple[str, ...]

    @property
    def graph(self) -> Graph:
        """What is packed."""
        return self.model.graph

    @property
    def data(self) -> dict[str, Any]:
        """For the report: activations, ranges and warnings."""
        return {
            "activations": [note.data for note in self.approximation.fitted],
            "approximation_error": self.approximation.output_error,
            "ranges": [
                {"name": name, "low": seen.low, "high": seen.high} for name, seen in self.calibration.observed.items()
            ],
            "samples": self.calibration.samples,
            "warnings": list(self.warnings),
        }


def front(model: Any, samples: ArrayLike, *, budget: Budget | None = None, client_sigmoid: bool = True) -> Front:
    """A model of any kind, and calibration samples `[batch, *feature_shape]` that ranges are read from."""
    imported = load(model, samples)
    return fitted(imported, simplify(imported, client_sigmoid=client_sigmoid), samples, budget)


def fitted(imported: Imported, simple: Imported, samples: ArrayLike, budget: Budget | None = None) -> Front:
    """The same, from a model that is imported and simplified already."""
    calibration = calibrate(simple, samples)
    packed = prepare(simple.before, features(simple, samples))
    approximation = approximate(simple.graph, calibration, packed, budget)
    graph = approximation.graph
    for _ in range(2):  # a mapping that could not be merged leaves a layer before, which takes the next one
        graph = simplify(replace(simple, graph=lowered(graph)), client_sigmoid=False).graph
    left = [node.name for node in graph.nodes if isinstance(node.operation, Activation | Composite | Power)]
    if left:
        raise LatticeError("model_unsupported", f"The functions of {', '.join(left)} could not be fitted.")
    warnings = tuple(_warnings(calibration, approximation))
    return Front(imported, replace(simple, graph=graph), calibration, approximation, warnings)


def _warnings(calibration: Calibration, approximation: Approximation) -> Iterator[str]:
    if calibration.samples < FEW:
        yield f"Only {calibration.samples} calibration samples: ranges are read from them, so pass a few hundred."
    if bool((calibration.low == calibration.high).all()):
        yield "All calibration samples are alike: ranges cannot be read from them."
    yield from approximation.warnings
