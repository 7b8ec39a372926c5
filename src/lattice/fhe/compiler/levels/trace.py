"""Every value of a circuit in the clear, in float64, junk slots included: what magnitudes are read off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev

from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import Circuit, Real, Stages, Step
from lattice.fhe.compiler.levels import wiring
from lattice.fhe.compiler.levels.wiring import makes, reads


class Magnitudes(NamedTuple):
    """The largest absolute value in any slot, seen on samples."""

    values: tuple[float, ...]
    """Of each value of the circuit."""


def trace(circuit: Circuit, inputs: Sequence[Real]) -> list[Real]:
    """All values `[batch, slots]`, for inputs of this shape."""
    known: dict[int, Real] = dict(enumerate(inputs))
    for step in circuit.steps:
        outs = outcome(step, [known[value] for value in reads(step)])
        known |= zip(makes(step), outs, strict=True)
    return [known[value] for value in range(wiring.count_values(circuit))]


def magnitudes(circuit: Circuit, inputs: Sequence[Real]) -> Magnitudes:
    """Of all values, without keeping them."""
    return Magnitudes(tuple(float(np.abs(value).max(initial=0.0)) for value in trace(circuit, inputs)))


def outcome(step: Step, operands: list[Real]) -> list[Real]:
    """What one step makes of its operands."""
    if isinstance(step, steps.Matrix):
        return matrix(step, operands)
    if isinstance(step, steps.Combine):
        return combine(step, operands)
    a, b = operands[0], operands[-1]
    if isinstance(step, steps.Rotate):
        return [np.roll(a, -step.steps, axis=-1)]
    if isinstance(step, steps.Polynomial):
        low, high = step.interval
        return [chebyshev.chebval((2.0 * a - low - high) / (high - low), np.asarray(step.coefficients))]
    if isinstance(step, steps.Subtract):
        return [a - b]
    return [a + b if isinstance(step, steps.Add) else a * b]


def matrix(step: steps.Matrix, operands: list[Real]) -> list[Real]:
    """Baby rotations once, then every result."""
    used = {(i, b) for out in step.terms for terms in out for i, b, _ in terms}
    turned = {(i, b): np.roll(operands[i], -step.babies[b], axis=-1) for i, b in used}
    outs = []
    for number, out in enumerate(step.terms):
        total = np.zeros_like(operands[0])
        for giant, terms in zip(step.giants, out, strict=True):
            if terms:
                inner = sum(step.diagonals[d] * turned[i, b] for i, b, d in terms)
                total = total + np.roll(inner, -giant, axis=-1)
        outs.append(finish(total, step.fold, None if step.bias is None else step.bias[number]))
    return outs


def combine(step: steps.Combine, operands: list[Real]) -> list[Real]:
    """A matrix product with periodic weights."""
    slots, period = operands[0].shape[-1], step.weights.shape[-1]
    stacked = np.stack(operands).reshape(len(operands), -1, slots // period, period)
    sums = np.einsum("aif,ibgf->abgf", step.weights, stacked, optimize=True).reshape(len(step.outs), -1, slots)
    bias = [None] * len(sums) if step.bias is None else [np.tile(row, slots // period) for row in step.bias]
    return [finish(total, step.fold, row) for total, row in zip(sums, bias, strict=True)]


def finish(total: Real, fold: Stages, bias: Real | None) -> Real:
    """Fold, then add the bias."""
    for stage in fold:
        total = total + sum(np.roll(total, -turn, axis=-1) for turn in stage)
    return total if bias is None else total + bias
