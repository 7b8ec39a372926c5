"""Levels: every value as low as its readers allow, and which operands must be brought to another's scale.

Levels are found backwards, from the outputs. A sum, or a linear step of several inputs, wants equal scales. The scale
of a *free* value (an input, or what a linear step or a polynomial makes) can be wished; otherwise the edge is
*adjusted*: the operand is multiplied by 1 at the ratio of the scales, which takes a level of that operand alone.
Which scales are equal does not depend on the primes (they are distinct), so the depth is known before parameters are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import Circuit
from lattice.fhe.compiler.levels import wiring
from lattice.fhe.compiler.levels.wiring import Edge, is_linear, makes, reads

STAND_INS = tuple(Fraction(1_000_003 + 2 * k) for k in range(512))
"""Pairwise different numbers in the place of primes, for asking which scales are equal."""


class Chain(NamedTuple):
    """What scales depend on."""

    scale: Fraction
    steps: tuple[Fraction, ...]
    """What rescaling at level ℓ divides by: `steps[ℓ − 1]`."""


@dataclass(frozen=True)
class Assignment:
    """Levels, and the decisions about scales."""

    levels: tuple[int, ...]
    """Of each value, where it is made; readers may drop it further."""
    step_levels: tuple[int, ...]
    """Of each step's results."""
    wishes: Mapping[int, int] = field(default_factory=dict)
    """Producer → the value whose scale its results are to have. Producers are steps, or −1 − input."""
    adjusted: frozenset[Edge] = frozenset()
    unrescaled: frozenset[int] = frozenset()
    """Linear steps at level 0 that are not rescaled."""
    lowered: Mapping[int, Fraction] = field(default_factory=dict)
    """Producer → the part of the chain's scale that its results have, where that is not 1: see `balance`."""

    @property
    def depth(self) -> int:
        """The level that the chain must have."""
        return max(self.levels)


def producers(circuit: Circuit) -> list[int]:
    """For each value the step that makes it, or −1 − input."""
    out = [-1 - number for number in range(wiring.count_values(circuit))]
    for index, step in enumerate(circuit.steps):
        for value in makes(step):
            out[value] = index
    return out


def assign(circuit: Circuit, *, unrescaled: frozenset[int] = frozenset()) -> Assignment:
    """Levels and scales that fit; `unrescaled` is a choice among `wiring.last_linear`."""
    adjusted: set[Edge] = set()
    while True:
        levels, step_levels = _levels(circuit, adjusted, unrescaled)
        found = Assignment(levels, step_levels, {}, frozenset(adjusted), unrescaled)
        wishes, misfit = _wishes(circuit, found)
        if misfit is None:
            return Assignment(levels, step_levels, wishes, frozenset(adjusted), unrescaled)
        adjusted.add(misfit)


def _levels(
    circuit: Circuit, adjusted: set[Edge], unrescaled: frozenset[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    need = [0] * wiring.count_values(circuit)
    at = [0] * len(circuit.steps)
    for index in reversed(range(len(circuit.steps))):
        step = circuit.steps[index]
        at[index] = max(need[value] for value in makes(step))
        takes = 0 if index in unrescaled else wiring.depth_of(step)
        for value in makes(step):
            need[value] = at[index]
        for operand, value in enumerate(reads(step)):
            need[value] = max(need[value], at[index] + takes + (Edge(index, operand) in adjusted))
    return tuple(need), tuple(at)


def _wishes(circuit: Circuit, found: Assignment) -> tuple[dict[int, int], Edge | None]:
    """Wishes under which all scales agree, or the first edge that has to be adjusted."""
    made_by = producers(circuit)
    wishes: dict[int, int] = {}
    chain = Chain(Fraction(1 << 20), STAND_INS)
    meetings = [
        (index, first, second)
        for index, step in enumerate(circuit.steps)
        for first, second in wiring.same_scale(step)
        if not {Edge(index, first), Edge(index, second)} & found.adjusted
    ]
    for index, first, second in meetings:
        a, b = reads(circuit.steps[index])[first], reads(circuit.steps[index])[second]
        for value, other in ((a, b), (b, a)):
            if made_by[a] != made_by[b] and _may_wish(circuit, made_by, wishes, value, other):
                wishes[made_by[value]] = other
                break
    scales = Scales(circuit, _with(found, wishes), chain)  # a later wish may have changed what an earlier one found
    for index, first, second in meetings:
        a, b = reads(circuit.steps[index])[first], reads(circuit.steps[index])[second]
        if scales.of(a) != scales.of(b):
            swapped = not is_linear(circuit.steps[index]) and found.levels[a] > found.levels[b]
            return wishes, Edge(index, first if swapped else second)
    return wishes, None


def _with(found: Assignment, wishes: dict[int, int]) -> Assignment:
    return Assignment(found.levels, found.step_levels, wishes, found.adjusted, found.unrescaled)


def _may_wish(circuit: Circuit, made_by: list[int], wishes: dict[int, int], value: int, other: int) -> bool:
    """The value's scale is free, not wished yet, and the other's does not depend on it."""
    producer = made_by[value]
    if producer in wishes or not is_free(circuit, producer):
        return False
    seen, stack = set(), [other]
    while stack:
        at = made_by[stack.pop()]
        if at == producer:
            return False
        if at in seen:
            continue
        seen.add(at)
        if at in wishes:
            stack.append(wishes[at])
        elif not is_free(circuit, at):
            stack.extend(reads(circuit.steps[at]))
    return True


def is_free(circuit: Circuit, producer: int) -> bool:
    """Whether the scale of what it makes may be chosen."""
    if producer < 0:
        return True
    return is_linear(circuit.steps[producer]) or isinstance(circuit.steps[producer], steps.Polynomial)


class Scales:
    """The exact scale of every value over one chain."""

    def __init__(
        self, circuit: Circuit, assignment: Assignment, chain: Chain, weights: Mapping[int, Fraction] | None = None
    ) -> None:
        self.circuit, self.assignment, self.chain = circuit, assignment, chain
        self.weights = weights or {}
        """Unrescaled step → the scale of its weights."""
        self._made_by = producers(circuit)
        self._known: dict[int, Fraction] = {}
        for value in range(len(self._made_by)):
            self.of(value)

    def of(self, value: int) -> Fraction:
        """The scale of a value."""
        producer = self._made_by[value]
        if producer not in self._known:
            self._known[producer] = self._find(producer)
        return self._known[producer]

    def operand(self, edge: Edge) -> Fraction:
        """The scale that an operand has when the step reads it, adjusted where it is."""
        values = reads(self.circuit.steps[edge.step])
        if edge not in self.assignment.adjusted:
            return self.of(values[edge.operand])
        mates = [
            a + b - edge.operand for a, b in wiring.same_scale(self.circuit.steps[edge.step]) if edge.operand in (a, b)
        ]
        return self.of(values[mates[0]])

    def _find(self, producer: int) -> Fraction:
        assignment = self.assignment
        if producer in assignment.unrescaled:
            edge = Edge(producer, 0)
            return self.operand(edge) * self.weights.get(producer, Fraction(1))
        if producer in assignment.wishes:
            return self.of(assignment.wishes[producer])
        if is_free(self.circuit, producer):
            return self.chain.scale * assignment.lowered.get(producer, Fraction(1))
        step, level = self.circuit.steps[producer], assignment.step_levels[producer]
        first = self.operand(Edge(producer, 0))
        if isinstance(step, steps.Square):
            return first * first / self.chain.steps[level]
        if isinstance(step, steps.Multiply):
            return first * self.operand(Edge(producer, 1)) / self.chain.steps[level]
        return first
