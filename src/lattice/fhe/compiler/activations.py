"""Activations become polynomials: fewest levels first, then the lowest degrees, that keep the results within a budget.
Polynomials are kept exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler.calibrate import Calibration
from lattice.fhe.compiler.client_part import BESIDE
from lattice.fhe.compiler.fitting import Explosion, Fitted, fit_all, levels, polynomial, room_beside, unfitted
from lattice.fhe.compiler.graph import Graph, Real
from lattice.fhe.compiler.operations.sizes import size

__all__ = ["Approximation", "Budget", "Fitted", "approximate", "levels"]

JUDGED = 500
"""Calibration samples that fitted models are tried on, at the most; ranges are read from all."""
FEWEST, WORK = 32, 1 << 24
"""At the least, and how many numbers one try may compute: it takes some tenths of a second."""
MANY = 12
"""Activations from which on all have the same degree: trying each takes too long."""
PARTS = 8
"""Steps in which degrees shrink within their levels."""


@dataclass(frozen=True)
class Budget:
    """How good the fits must be."""

    output_error: float = 0.05
    """Of the fitted model's results on the calibration samples: root mean square over the results' own spread. At 0.05
    the MNIST MLP with ReLU decides 9,992 of 10,000 unseen images as before (degrees 27, 27), at 0.1 9,984 (21, 10)."""
    fit_error: float = 0.5
    """The same of any one activation."""
    result_error: float = 0.02
    """The largest error on the calibrated range of an activation whose values are results, as a part of how much they
    differ there: 0.02 of a probability."""
    margin: float = 0.25
    """Of the calibrated range, added at both ends. Beyond it a polynomial explodes: with 0.1, one of 284 unseen rows of
    the breast-cancer data did (two hidden layers of ReLU); with 0.25, none."""
    highest: int = 63
    """Degree beyond which no fit goes; degree d costs about log2(d + 1) levels."""
    full: bool = False
    """Take the highest degrees that the levels allow, not the lowest that do."""


@dataclass(frozen=True, eq=False)
class Approximation:
    """A graph with polynomials only, and how it differs from the one that it stands for."""

    graph: Graph
    fitted: tuple[Fitted, ...]
    output_error: float
    """Root mean square over the calibration samples, over the spread of the results."""
    warnings: tuple[str, ...]


def approximate(graph: Graph, calibration: Calibration, packed: Real, budget: Budget | None = None) -> Approximation:
    """Every activation fitted, each as badly as the results allow."""
    return _Search(graph, calibration, packed, budget or Budget()).run()


class _Search:
    """Trying degrees until the results are as far off as they may be."""

    def __init__(self, graph: Graph, calibration: Calibration, packed: Real, budget: Budget) -> None:
        self.graph, self.seen, self.budget = graph, calibration.observed, budget
        self.room = room_beside(graph, _unwarned(calibration, packed))
        each = sum(size(shape) for shape in graph.shapes().values())
        count = max(FEWEST, min(JUDGED, WORK // each))
        self.packed = packed[:: -(-len(packed) // count)]
        self.exact = graph.run(self.packed)
        self.names = [
            node.name for node in graph.nodes if unfitted(node.operation) and polynomial(node.operation) is None
        ]
        # One degree for each number of levels: the highest.
        self.tops = [top for top in (2, 3, 7, 15, 31, 63, 127) if top < budget.highest] + [budget.highest]

    def run(self) -> Approximation:
        """The best that the budget allows."""
        if not self.names:
            return self._tried({})
        places = self._alike()
        if places is None:
            return self._best()
        if len(self.names) <= MANY:
            self._lower(places)
        return self._tried(self._degrees(places)) if self.budget.full else self._shrunk(places)

    def _best(self) -> Approximation:
        """As good as the highest degree makes it, which is not as good as was asked for."""
        try:
            return self._tried(dict.fromkeys(self.names, self.budget.highest))
        except Explosion:
            raise LatticeError(
                "model_unsupported",
                f"No polynomials of degree {self.budget.highest} or lower keep this model together: too many fitted "
                "activations follow each other. Train it with squares, or with batch normalisation before each.",
            ) from None

    def _alike(self) -> dict[str, int] | None:
        """The fewest levels that do for all of them."""
        for place in range(len(self.tops)):
            places = dict.fromkeys(self.names, place)
            if self._fits(self._degrees(places)):
                return places
        return None

    def _lower(self, places: dict[str, int]) -> None:
        """Fewer levels for single activations, as long as any can do with fewer."""
        candidates = [name for name in self.names if places[name] > 0]
        while candidates:
            name = max(candidates, key=lambda each: places[each])
            if self._fits(self._degrees(places | {name: places[name] - 1})):
                places[name] -= 1
            else:
                candidates.remove(name)
            candidates = [each for each in candidates if places[each] > 0]

    def _shrunk(self, places: dict[str, int]) -> Approximation:
        """Lower degrees with the same levels: fewer products, the same depth."""
        low, high = 1, PARTS
        while low < high:
            middle = (low + high) // 2
            if self._fits(self._degrees(places, middle)):
                high = middle
            else:
                low = middle + 1
        return self._tried(self._degrees(places, high))

    def _degrees(self, places: dict[str, int], part: int = PARTS) -> dict[str, int]:
        """Degrees that are `part` of the way through their levels."""
        degrees = {}
        for name, place in places.items():
            below = self.tops[place - 1] if place else 1
            degrees[name] = below - (below - self.tops[place]) * part // PARTS
        return degrees

    def _fits(self, degrees: dict[str, int]) -> bool:
        try:
            tried = self._tried(degrees)
        except Explosion:
            return False
        each = all(_is_fine(note, self.budget) for note in tried.fitted)
        return each and tried.output_error <= self.budget.output_error

    def _tried(self, degrees: dict[str, int]) -> Approximation:
        graph, notes, results = fit_all(self.graph, self.seen, self.packed, degrees, self.budget.margin, self.room)
        difference = results - self.exact
        error = float(np.sqrt(np.mean(difference * difference))) / (float(np.std(self.exact)) or 1.0)
        return Approximation(graph, tuple(notes), error, tuple(_warnings(notes, error, self.budget)))


def _unwarned(calibration: Calibration, packed: Real) -> Real:
    """How far each packed feature may lie beside what calibration saw of it without anybody being warned."""
    flat = packed.reshape(len(packed), -1)
    least, most = flat.min(axis=0), flat.max(axis=0)
    as_given = np.array_equal(least, calibration.low) and np.array_equal(most, calibration.high)
    low, high = calibration.ranges if as_given else (least, most)
    slack = BESIDE * (high - low)
    return np.asarray(np.maximum(high + slack - most, least - low + slack), dtype=np.float64)


def _is_fine(note: Fitted, budget: Budget) -> bool:
    read = not note.is_result or note.seen_error <= budget.result_error * note.reach
    return read and note.relative_error <= budget.fit_error


def _warnings(notes: Iterable[Fitted], error: float, budget: Budget) -> Iterable[str]:
    if error > budget.output_error:
        yield (
            f"The fitted polynomials change the results by {error:.1%} of their spread on the calibration samples, "
            f"more than the {budget.output_error:.1%} asked for. Train with squares, or allow a higher degree."
        )
    for note in notes:
        if note.relative_error > 0.1:
            yield f"{note.node} ({note.function}) is fitted to {note.relative_error:.0%} of its spread only."
        if note.is_result and note.seen_error > budget.result_error * note.reach:
            yield (
                f"Results are values of {note.node} ({note.function}), which is fitted with an error of up to "
                f"{note.seen_error:.2g} on the calibrated range, more than {budget.result_error * note.reach:.2g}."
            )
