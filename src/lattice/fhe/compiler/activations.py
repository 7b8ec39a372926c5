"""Activations become polynomials: degree by error budget, interval by calibration. Polynomials are kept exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.calibrate import Calibration, Observed, observe
from lattice.fhe.compiler.chebyshev import Fit, Function, fit, interpolate, measured
from lattice.fhe.compiler.graph import Graph, Node, Operation, Real
from lattice.fhe.compiler.operations import Activation, Composite, Power, Series

ROUNDS = 8
JUDGED = 2000
"""Calibration samples that fitted models are tried on; ranges are read from all."""


@dataclass(frozen=True)
class Budget:
    """How good the fits must be."""

    output_error: float = 0.05
    """Of the fitted model's results on the calibration samples: root mean square over the results' own spread."""
    fit_error: float = 0.05
    """Where the search starts: the same of one activation."""
    margin: float = 0.25
    """Of the calibrated range, added at both ends. Beyond it a polynomial explodes: with 0.1, one of 284 unseen rows of
    the breast-cancer data did (two hidden layers of ReLU); with 0.25, none."""
    highest: int = 63
    """Degree beyond which no fit goes; degree d costs about log2(d + 1) levels."""


@dataclass(frozen=True)
class Fitted:
    """One activation, for the report."""

    node: str
    function: str
    low: float
    high: float
    seen_low: float
    seen_high: float
    degree: int
    levels: int
    max_error: float
    """Anywhere in the interval."""
    rms_error: float
    """Over the calibrated values."""
    relative_error: float
    """`rms_error` over the spread of the function's values."""

    @property
    def data(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Approximation:
    """A graph with polynomials only, and how it differs from the one that it stands for."""

    graph: Graph
    fitted: tuple[Fitted, ...]
    output_error: float
    """Root mean square over the calibration samples, over the spread of the results."""
    warnings: tuple[str, ...]


def levels(degree: int) -> int:
    """Levels that a series of this degree takes: ⌈log2(degree + 1)⌉, and 1 for degree 2, which becomes a square."""
    return 1 if degree <= 2 else degree.bit_length()


def approximate(graph: Graph, calibration: Calibration, packed: Real, budget: Budget | None = None) -> Approximation:
    """Every activation fitted, each as badly as the results allow: the budget of the fits shrinks until they do."""
    budget = budget or Budget()
    packed = packed[:: -(-len(packed) // JUDGED)]
    tolerance, exact = budget.fit_error, graph.run(packed)
    spread = float(np.std(exact)) or 1.0
    while True:
        fitted, notes = _fit_all(graph, calibration.observed, packed, replace(budget, fit_error=tolerance))
        difference = fitted.run(packed) - exact
        error = float(np.sqrt(np.mean(difference * difference))) / spread
        at_limit = all(note.degree >= budget.highest or note.relative_error < 1e-9 for note in notes)
        if error <= budget.output_error or at_limit or tolerance < 1e-8:
            break
        tolerance /= 2 if error < 4 * budget.output_error else 4
    return Approximation(fitted, tuple(notes), error, tuple(_warnings(notes, error, budget)))


def _fit_all(graph: Graph, seen: dict[str, Observed], packed: Real, budget: Budget) -> tuple[Graph, list[Fitted]]:
    """All nodes fitted; ranges grow where the fitted model's own values leave them."""
    ranges = {node.name: _range(seen[node.inputs[0]], budget.margin) for node in graph.nodes if _open(node.operation)}
    for _ in range(ROUNDS):
        made = [
            _fit_node(node, seen[node.inputs[0]], ranges[node.name], budget) if node.name in ranges else None
            for node in graph.nodes
        ]
        nodes = [
            node if done is None else replace(node, operation=done[0])
            for node, done in zip(graph.nodes, made, strict=True)
        ]
        result = replace(graph, nodes=tuple(nodes))
        beyond = _beyond(result, ranges, packed)
        if not beyond:
            break
        ranges.update(beyond)
    return result, [done[1] for done in made if done is not None]


def _open(operation: Operation) -> bool:
    """Whether there is a function left to fit."""
    return isinstance(operation, Activation | Composite | Power)


def _range(seen: Observed, margin: float) -> tuple[float, float]:
    width = seen.high - seen.low
    width = width if width > 0 else max(1.0, abs(seen.high))
    return seen.low - margin * width, seen.high + margin * width


def _beyond(graph: Graph, ranges: dict[str, tuple[float, float]], packed: Real) -> dict[str, tuple[float, float]]:
    """Intervals that the fitted model leaves on its own calibration samples, and what they must be."""
    try:
        seen = observe(graph, packed)
    except LatticeError:
        raise LatticeError(
            "model_unsupported",
            "The fitted model overflows on its calibration samples: too many activations follow each other.",
        ) from None
    wider = {}
    for node in graph.nodes:
        if node.name in ranges:
            (low, high), now = ranges[node.name], seen[node.inputs[0]]
            if now.low < low or now.high > high:
                wider[node.name] = (min(low, now.low * 1.05), max(high, now.high * 1.05))
                wider[node.name] = _around(wider[node.name], now)
    return wider


def _around(interval: tuple[float, float], now: Observed) -> tuple[float, float]:
    """The interval with what was seen well inside, whatever the signs are."""
    width = 0.05 * (now.high - now.low)
    return min(interval[0], now.low - width), max(interval[1], now.high + width)


def _fit_node(node: Node, seen: Observed, interval: tuple[float, float], budget: Budget) -> tuple[Series, Fitted]:
    operation = node.operation
    interval = _domain(node, interval, seen)
    function: Function = operation.forward
    if isinstance(operation, Power) or (isinstance(operation, Composite) and operation.degree is not None):
        degree = operation.exponent if isinstance(operation, Power) else operation.degree
        assert degree is not None
        best = measured(interpolate(function, degree, interval), function, seen.kept)
    else:
        best = _search(function, seen.kept, interval, budget)
    spread = float(np.std(function(seen.kept))) or 1.0
    name = operation.function if isinstance(operation, Activation) else type(operation).__name__.lower()
    low, high = interval
    degree = best.series.degree
    note = Fitted(
        node.name,
        name,
        low,
        high,
        seen.low,
        seen.high,
        degree,
        levels(degree),
        best.max_error,
        best.rms_error,
        best.rms_error / spread,
    )
    return best.series, note


def _domain(node: Node, interval: tuple[float, float], seen: Observed) -> tuple[float, float]:
    """The interval cut to where the function is defined; a refusal where calibration itself is outside."""
    function = getattr(node.operation, "function", "")
    low, high = interval
    if function == "reciprocal" and seen.low < 0 < seen.high:
        raise LatticeError("model_unsupported", f"{node.name!r} divides by a value that changes its sign.")
    if function in ("log", "sqrt") or (function == "reciprocal" and seen.low > 0):
        # Half-way to the pole at most: nearer, no polynomial follows.
        low = max(low, seen.low / 2)
        if seen.low <= 0:
            raise LatticeError("model_unsupported", f"{node.name!r} takes {function} of a value that is not above 0.")
    elif function == "reciprocal":
        high = min(high, seen.high / 2)
    return low, high


def _search(function: Function, kept: Real, interval: tuple[float, float], budget: Budget) -> Fit:
    """The cheapest degree within the budget: fewest levels first, then the lowest degree of those."""
    spread = float(np.std(function(kept))) or 1.0
    tops = [top for top in (2, 3, 7, 15, 31, 63, 127) if top < budget.highest] + [budget.highest]
    below = 0
    for top in tops:
        best = fit(function, top, interval, kept)
        if best.rms_error <= budget.fit_error * spread or top == budget.highest:
            break
        below = top
    if best.rms_error > budget.fit_error * spread:
        return best
    low, high = below + 1, best.series.degree
    while low < high:
        middle = (low + high) // 2
        candidate = fit(function, middle, interval, kept)
        if candidate.rms_error <= budget.fit_error * spread:
            best, high = candidate, middle
        else:
            low = middle + 1
    return best


def _warnings(notes: Iterable[Fitted], error: float, budget: Budget) -> Iterable[str]:
    if error > budget.output_error:
        yield (
            f"The fitted polynomials change the results by {error:.1%} of their spread on the calibration samples, "
            f"more than the {budget.output_error:.1%} asked for. Train with squares, or allow a higher degree."
        )
    for note in notes:
        if note.relative_error > 0.1:
            yield f"{note.node} ({note.function}) is fitted to {note.relative_error:.0%} of its spread only."
