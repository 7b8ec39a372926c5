"""Every function of a graph fitted, at given degrees; intervals grow until the fitted model stays within them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.calibrate import MEMORY, Observed
from lattice.fhe.compiler.chebyshev import Fit, Function, fit, fit_evenly, interpolate, measured
from lattice.fhe.compiler.graph import Graph, Node, Operation, Real
from lattice.fhe.compiler.operations import Activation, Affine, Composite, Linear, Permute, Power, Reshape, Series
from lattice.fhe.compiler.operations.sizes import size

ROUNDS = 8
FIRST = 0.6
"""The part of the margin for a function that no other fitted one comes before: its values are what calibration saw."""


class Explosion(Exception):
    """The fitted model overflows on its own calibration samples: its polynomials are too bad."""


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
    seen_error: float
    """The largest on the calibrated range."""
    rms_error: float
    """Over the calibrated values."""
    relative_error: float
    """`rms_error` over the spread of the function's values."""
    is_result: bool = False
    """Whether its values are the model's results, such as probabilities: somebody reads them one by one."""
    reach: float = 1.0
    """By how much the function's values differ over the calibrated range."""

    @property
    def data(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def levels(degree: int) -> int:
    """Levels that a series of this degree takes: ⌈log2(degree + 1)⌉, and 1 for degree 2, which becomes a square."""
    return 1 if degree <= 2 else degree.bit_length()


def polynomial(operation: Operation) -> int | None:
    """The degree, where the function is a polynomial already."""
    if isinstance(operation, Power):
        return operation.exponent
    return operation.degree if isinstance(operation, Composite) else None


def fit_all(
    graph: Graph,
    seen: Mapping[str, Observed],
    packed: Real,
    degrees: Mapping[str, int],
    margin: float,
    room: Mapping[str, float] | None = None,
) -> tuple[Graph, list[Fitted], Real]:
    """All nodes fitted; ranges grow where the fitted model's own values leave them. `degrees` by node; polynomials
    have their own. `room` is what a value's range must have at each end (see `room_beside`). With the results on these
    samples."""
    least = room or {}
    behind, leaving = _behind(graph), results_of(graph)
    ranges = {
        node.name: _range(
            seen[node.inputs[0]],
            margin * (1.0 if node.inputs[0] in behind else FIRST),
            least.get(node.inputs[0], 0.0),
        )
        for node in graph.nodes
        if unfitted(node.operation)
    }
    for _ in range(ROUNDS):
        made = {
            node.name: _fit_node(
                node, seen[node.inputs[0]], ranges[node.name], degrees.get(node.name, 0), node.name in leaving
            )
            for node in graph.nodes
            if node.name in ranges
        }
        nodes = [replace(node, operation=made[node.name][0]) if node.name in made else node for node in graph.nodes]
        result = replace(graph, nodes=tuple(nodes))
        seen_now, output = _swept(result, packed, {node.inputs[0] for node in graph.nodes if node.name in ranges})
        beyond = _beyond(result, ranges, seen_now)
        if not beyond:
            break
        ranges.update(beyond)
    return result, [note for _, note in made.values()], output


def _behind(graph: Graph) -> set[str]:
    """The values that fitted functions have changed."""
    changed: set[str] = set()
    for node in graph.nodes:
        if unfitted(node.operation) or changed.intersection(node.inputs):
            changed.add(node.name)
    return changed


def results_of(graph: Graph) -> set[str]:
    """Functions whose values leave one by one, at most scaled, shifted and reordered."""
    made, names, found = {node.name: node for node in graph.nodes}, [graph.output], set()
    while names:
        node = made.get(names.pop())
        if node is not None and unfitted(node.operation):
            found.add(node.name)
        elif node is not None and isinstance(node.operation, Affine | Permute | Reshape):
            names += node.inputs
    return found


def unfitted(operation: Operation) -> bool:
    """Whether there is a function left to fit."""
    return isinstance(operation, Activation | Composite | Power)


def room_beside(graph: Graph, slack: Real) -> dict[str, float]:
    """By how much each value of a first linear layer moves at most when one feature lies by its `slack` beside its
    range. Clients are not warned of that, so polynomials must hold there; where one heavy-tailed column makes nearly
    all of a sum, that is more than the usual margin."""
    shapes = graph.shapes()
    room = {graph.input: float(slack.max(initial=0.0))}
    for node in graph.nodes:
        if node.inputs == (graph.input,) and isinstance(node.operation, Linear):
            entries = node.operation.matrix(shapes[graph.input])
            room[node.name] = float((np.abs(entries.values) * slack[entries.columns]).max(initial=0.0))
    return room


def _range(seen: Observed, margin: float, room: float) -> tuple[float, float]:
    width = seen.high - seen.low
    beside = max(room, margin * (width if width > 0 else max(1.0, abs(seen.high))))
    return seen.low - beside, seen.high + beside


def _swept(graph: Graph, packed: Real, names: Iterable[str]) -> tuple[dict[str, tuple[float, float]], Real]:
    """The least and greatest of some values, and the results, in batches of bounded memory."""
    step = max(1, MEMORY // (8 * sum(size(shape) for shape in graph.shapes().values())))
    seen = dict.fromkeys(names, (math.inf, -math.inf))
    results = []
    for start in range(0, len(packed), step):
        with np.errstate(all="ignore"):
            values = graph.trace(packed[start : start + step])
        for name, (low, high) in seen.items():
            seen[name] = min(low, float(values[name].min())), max(high, float(values[name].max()))
        results.append(values[graph.output])
    output = np.concatenate(results)
    if not (np.all(np.isfinite(output)) and np.all(np.isfinite(list(seen.values())))):
        raise Explosion
    return seen, output


def _beyond(
    graph: Graph, ranges: Mapping[str, tuple[float, float]], seen: Mapping[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Intervals that the fitted model leaves on its own calibration samples, and what they must be."""
    wider = {}
    for node in graph.nodes:
        if node.name in ranges:
            (low, high), (least, greatest) = ranges[node.name], seen[node.inputs[0]]
            if least < low or greatest > high:
                room = 0.05 * (greatest - least)
                wider[node.name] = min(low, least - room), max(high, greatest + room)
    return wider


def _fit_node(
    node: Node, seen: Observed, interval: tuple[float, float], degree: int, is_result: bool
) -> tuple[Series, Fitted]:
    operation = node.operation
    low, high = _domain(node, interval, seen)
    function: Function = operation.forward
    kept = _with_ends(seen)
    exact = polynomial(operation)
    if exact is not None:
        best = measured(interpolate(function, exact, (low, high)), function, seen.kept)
    else:
        best = (fit_evenly if is_result else fit)(function, degree, (low, high), kept)
    return best.series, described(node, seen, best, is_result)


def described(node: Node, seen: Observed, best: Fit, is_result: bool) -> Fitted:
    """What a report says of a fit."""
    operation, (low, high) = node.operation, best.series.interval
    function: Function = operation.forward
    spread = float(np.std(function(seen.kept))) or 1.0
    reached = function(np.linspace(max(low, seen.low), min(high, seen.high), 257))
    name = operation.function if isinstance(operation, Activation) else type(operation).__name__.lower()
    degree = best.series.degree
    return Fitted(
        node.name,
        name,
        low,
        high,
        seen.low,
        seen.high,
        degree,
        levels(degree),
        best.max_error,
        best.seen_error,
        best.rms_error,
        best.rms_error / spread,
        is_result,
        float(np.ptp(reached)) or 1.0,
    )


def _with_ends(seen: Observed) -> Real:
    """The values kept are a sample; the range is that of all."""
    return np.append(seen.kept, [seen.low, seen.high])


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
