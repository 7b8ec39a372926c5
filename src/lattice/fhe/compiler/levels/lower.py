"""A circuit and its assignment, over given parameters, as a program with weights.

Linear steps encode their weights at whatever rational scale makes the rescaled result's scale the wanted one, so
nothing drifts; a square leaves Δ²/q, which the next linear step corrects. Folds stand before the rescale (they then add
no noise) or behind it (they are then cheaper): the caller chooses. A last linear step at level 0 is not rescaled.
Rotations of one value share its decomposition.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.circuits import polynomial as series_of
from lattice.fhe.circuits.polynomial import UNIT, Series
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import Circuit, Stages, Step
from lattice.fhe.compiler.levels import products, wiring
from lattice.fhe.compiler.levels.assign import Assignment, Chain, Scales
from lattice.fhe.compiler.levels.builder import Builder
from lattice.fhe.compiler.levels.wiring import Edge, makes, reads
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal.program import Program, scale_text
from lattice.fhe.hal.rules import CiphertextType

SHORT_PERIOD = 64
"""Up to this period a plaintext is stored by its few distinct values; longer ones in full."""


@dataclass(frozen=True, eq=False)
class Lowered:
    """The program, its weights, and where everything came from."""

    program: Program
    weights: tuple[NDArray[np.floating[Any]], ...]
    layers: tuple[str, ...]
    """Of each instruction."""
    registers: tuple[int, ...]
    """The register of each value of the circuit, as it was made."""


def chain_of(params: ParameterSet) -> Chain:
    """What scales depend on."""
    return Chain(params.scale, tuple(Fraction(prod(group)) for group in params.levels))


def lower(
    circuit: Circuit,
    assignment: Assignment,
    params: ParameterSet,
    *,
    weight_scales: dict[int, Fraction] | None = None,
    fold_first: bool = True,
) -> Lowered:
    """The program. `weight_scales` has one entry for each unrescaled step."""
    lowering = _Lowering(circuit, assignment, params, weight_scales or {}, fold_first)
    return lowering.run()


class _Lowering:
    def __init__(
        self,
        circuit: Circuit,
        assignment: Assignment,
        params: ParameterSet,
        weight_scales: dict[int, Fraction],
        fold_first: bool,
    ) -> None:
        self.circuit, self.assignment, self.params = circuit, assignment, params
        self.fold_first = fold_first
        self.scales = Scales(circuit, assignment, chain_of(params), weight_scales)
        self.to = Builder(params)
        self.registers: dict[int, int] = {}
        self._dropped: dict[tuple[int, int], int] = {}
        self._turns = self._all_turns()
        self._hoisted: dict[tuple[int, int], dict[int, int]] = {}

    def run(self) -> Lowered:
        """Inputs, steps, outputs."""
        names = wiring.names(self.circuit)
        self.to.layer = "input"
        for value in range(len(self.circuit.inputs)):
            self.registers[value] = self.to.input(self.assignment.levels[value], self.scales.of(value))
        for index, step in enumerate(self.circuit.steps):
            self.to.layer = names[index]
            outs = _STEPS[type(step)](self, index, step)
            self.registers |= zip(makes(step), outs, strict=True)
        outputs = [self.registers[value] for value in self.circuit.outputs]
        registers = tuple(self.registers[value] for value in range(len(self.registers)))
        return Lowered(self.to.program(outputs), tuple(self.to.values), tuple(self.to.layers), registers)

    # --- operands -----------------------------------------------------------------------------------------

    def operand(self, edge: Edge, level: int) -> int:
        """The register of an operand at this level, dropped and adjusted as needed."""
        value = reads(self.circuit.steps[edge.step])[edge.operand]
        if edge not in self.assignment.adjusted:
            return self.dropped(value, level)
        wanted, step = self.scales.operand(edge), self.chain_step(level + 1)
        ratio = wanted * step / self.scales.of(value)
        x = self.dropped(value, level + 1)
        scaled = self.to.emit(ops.MultiplyConstant, a=x, value=1.0, scale=scale_text(ratio))
        return self.to.emit(ops.Rescale, a=scaled)

    def dropped(self, value: int, level: int) -> int:
        """A value at this level or below where it was made."""
        if level == self.assignment.levels[value]:
            return self.registers[value]
        if (value, level) not in self._dropped:
            self._dropped[value, level] = self.to.emit(ops.Drop, a=self.registers[value], level=level)
        return self._dropped[value, level]

    def chain_step(self, level: int) -> Fraction:
        """What rescaling at this level divides by."""
        return self.scales.chain.steps[level - 1]

    # --- linear steps -------------------------------------------------------------------------------------

    def linear_frame(self, index: int) -> tuple[int, Fraction, list[int]]:
        """The level of a linear step's operands, the scale of its weights, and the operands."""
        step, level = self.circuit.steps[index], self.assignment.step_levels[index]
        source = self.scales.operand(Edge(index, 0))
        wanted = self.scales.of(makes(step)[0])
        if index not in self.assignment.unrescaled:
            level += 1
            wanted *= self.chain_step(level)
        operands = [self.operand(Edge(index, k), level) for k in range(len(reads(step)))]
        return level, wanted / source, operands

    def finish(self, index: int, results: list[int], fold: Stages, bias: NDArray[np.float64] | None) -> list[int]:
        """Fold, rescale, add the bias."""
        step, rescaled = self.circuit.steps[index], index not in self.assignment.unrescaled
        level, scale = self.assignment.step_levels[index], self.scales.of(makes(step)[0])
        outs = []
        for number, register in enumerate(results):
            if fold and (self.fold_first or not rescaled):
                register = self.to.emit(ops.SumSlots, a=register, stages=fold)
            if rescaled:
                register = self.to.emit(ops.Rescale, a=register)
            if fold and rescaled and not self.fold_first:
                register = self.to.emit(ops.SumSlots, a=register, stages=fold)
            outs.append(register if bias is None else self.biased(register, bias[number], level, scale))
        return outs

    def biased(self, register: int, bias: NDArray[np.float64], level: int, scale: Fraction) -> int:
        """With a periodic bias added; one number for all slots needs no plaintext."""
        if not bias.any():
            return register
        if (bias == bias[0]).all():
            return self.to.emit(ops.AddConstant, a=register, value=float(bias[0]))
        plain = self.to.weight(self.tiled(bias)[None, :], level, scale)
        return self.to.emit(ops.AddPlain, a=register, plain=plain)

    def tiled(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Periodic values in all slots."""
        return np.tile(values, self.circuit.slots // values.shape[-1])

    def matrix(self, index: int, step: steps.Matrix) -> list[int]:
        """One product of all inputs; or weights over Q alone, where nothing turns or that is quicker."""
        level, scale, operands = self.linear_frame(index)
        simple = set(step.babies) | set(step.giants) == {0}
        over_q = simple or products.is_quicker_over_q(step, self.params, level)
        plain = self.to.weight(step.diagonals, level, scale, count=len(step.diagonals), extended=not over_q)
        if over_q:
            results = products.over_q(self.to, step, operands, plain, self.circuit.slots)
        else:
            results = self.to.emit_many(
                ops.Matrix,
                len(step.outs),
                inputs=tuple(operands),
                plain=plain,
                babies=step.babies,
                giants=step.giants,
                terms=step.terms,
            )
        return self.finish(index, results, step.fold, step.bias)

    def combine(self, index: int, step: steps.Combine) -> list[int]:
        """Few distinct numbers as such, others as plaintexts in full."""
        level, scale, operands = self.linear_frame(index)
        outs, inputs, period = step.weights.shape
        if period <= SHORT_PERIOD:
            plain = self.to.weight(step.weights, level, scale, count=outs * inputs, period=period)
            results = self.to.emit_many(ops.SumPeriodic, outs, inputs=tuple(operands), plain=plain)
        else:
            full = self.tiled(step.weights.reshape(outs * inputs, period))
            plain = self.to.weight(full, level, scale, count=outs * inputs)
            terms = tuple(tuple((i, a * inputs + i) for i in range(inputs)) for a in range(outs))
            results = self.to.emit_many(ops.SumPlain, outs, inputs=tuple(operands), plain=plain, terms=terms)
        return self.finish(index, results, step.fold, step.bias)

    # --- the others ---------------------------------------------------------------------------------------

    def sum(self, index: int, step: steps.Add | steps.Subtract) -> list[int]:
        """Both at one level and scale."""
        level = self.assignment.step_levels[index]
        a, b = (self.operand(Edge(index, k), level) for k in (0, 1))
        return [self.to.emit(ops.Add if isinstance(step, steps.Add) else ops.Subtract, a=a, b=b)]

    def rotate(self, index: int, step: steps.Rotate) -> list[int]:
        """A rotation, or nothing; several of one value at one level are made together, with one decomposition."""
        level, turn = self.assignment.step_levels[index], step.steps % self.circuit.slots
        x = self.operand(Edge(index, 0), level)
        if turn == 0:
            return [x]
        turns = self._turns[step.a, level]
        if len(turns) == 1:
            return [self.to.emit(ops.Rotate, a=x, steps=turn)]
        if (step.a, level) not in self._hoisted:
            outs = self.to.emit_many(ops.RotateHoisted, len(turns), a=x, steps=tuple(turns))
            self._hoisted[step.a, level] = dict(zip(turns, outs, strict=True))
        return [self._hoisted[step.a, level][turn]]

    def _all_turns(self) -> dict[tuple[int, int], list[int]]:
        """The rotations of each value at each level, as they first come."""
        found: dict[tuple[int, int], dict[int, None]] = {}
        for step, level in zip(self.circuit.steps, self.assignment.step_levels, strict=True):
            if isinstance(step, steps.Rotate) and step.steps % self.circuit.slots:
                found.setdefault((step.a, level), {})[step.steps % self.circuit.slots] = None
        return {key: list(turns) for key, turns in found.items()}

    def product(self, index: int, step: steps.Multiply | steps.Square) -> list[int]:
        """Multiply, relinearise, rescale."""
        level = self.assignment.step_levels[index] + 1
        a = self.operand(Edge(index, 0), level)
        b = a if isinstance(step, steps.Square) else self.operand(Edge(index, 1), level)
        product = self.to.emit(ops.Multiply, a=a, b=b)
        return [self.to.emit(ops.Rescale, a=self.to.emit(ops.Relinearise, a=product))]

    def polynomial(self, index: int, step: steps.Polynomial) -> list[int]:
        """The series at exactly the wanted scale; an interval other than [−1, 1] is mapped to it first."""
        level = self.assignment.step_levels[index] + wiring.depth_of(step)
        x, at = self.operand(Edge(index, 0), level), self.scales.operand(Edge(index, 0))
        if step.interval != UNIT:
            a, b = step.interval
            ratio = self.scales.chain.scale * self.chain_step(level) / at
            x = self.to.emit(ops.MultiplyConstant, a=x, value=2.0 / (b - a), scale=scale_text(ratio))
            x = self.to.emit(ops.Rescale, a=x)
            x = self.to.emit(ops.AddConstant, a=x, value=-(a + b) / (b - a))
            level, at = level - 1, self.scales.chain.scale
        wanted = self.scales.of(step.out)
        series = Series(tuple(step.coefficients))
        split = series_of.plan(self.params, CiphertextType(level, at), series, wanted).split
        return [
            self.to.emit(
                ops.Chebyshev, a=x, coefficients=tuple(step.coefficients), scale=scale_text(wanted), split=split
            )
        ]


_STEPS: dict[type[Step], Callable[[_Lowering, int, Any], list[int]]] = cast(
    Any,
    {
        steps.Matrix: _Lowering.matrix,
        steps.Combine: _Lowering.combine,
        steps.Add: _Lowering.sum,
        steps.Subtract: _Lowering.sum,
        steps.Rotate: _Lowering.rotate,
        steps.Multiply: _Lowering.product,
        steps.Square: _Lowering.product,
        steps.Polynomial: _Lowering.polynomial,
    },
)
