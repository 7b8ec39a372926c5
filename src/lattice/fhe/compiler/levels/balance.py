"""The scale of values that a last, unrescaled layer reads, against that of its weights: the two share one modulus.

Weights at scale W and values at scale S leave results at S·W, which must fit below the lowest modulus. The results'
error is about |w|·(N/6)/S from the last rescaling of the values and |x|·√(N/24)/W from rounding the weights: least
where the two are equal. At the chain's own scale the weights are mostly the coarser ones, so the values' scale is
lowered, at the linear step or polynomial from which they come, through the squares between.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import log2, prod, sqrt

import numpy as np

from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import Circuit
from lattice.fhe.compiler.levels import wiring
from lattice.fhe.compiler.levels.assign import Assignment, is_free, producers
from lattice.fhe.compiler.levels.trace import Magnitudes
from lattice.fhe.compiler.levels.wiring import makes, reads

HEADROOM_BITS = 2
"""Of the lowest modulus, left free above the largest result."""
MOST_BITS = 6.0


def balanced(
    circuit: Circuit, assignment: Assignment, params: ParameterSet, magnitudes: Magnitudes, margin: float
) -> Assignment:
    """With lowered scales before the last layer; the same assignment where none can be lowered."""
    lowered: dict[int, Fraction] = {}
    for index in assignment.unrescaled:
        source = _source(circuit, assignment, index)
        if source is None:
            continue
        producer, squares = source
        bits = _excess(circuit, index, params, magnitudes, margin)
        if bits > 0:
            lowered[producer] = Fraction(round(2.0 ** (30 - bits / 2**squares)), 1 << 30)
    return replace(assignment, lowered=lowered)


def _source(circuit: Circuit, assignment: Assignment, index: int) -> tuple[int, int] | None:
    """Whose results the step reads, through how many squares; None where others depend on their scale."""
    if len(reads(circuit.steps[index])) != 1:
        return None
    (value,), made_by, readers = reads(circuit.steps[index]), producers(circuit), wiring.readers(circuit)
    squares = 0
    while True:
        producer = made_by[value]
        if producer < 0 or len(readers[value]) != 1 or value in circuit.outputs:
            return None
        step = circuit.steps[producer]
        if not isinstance(step, steps.Square):
            break
        value, squares = step.a, squares + 1
    wished = producer in assignment.wishes or value in assignment.wishes.values()
    return None if wished or not is_free(circuit, producer) or len(makes(step)) != 1 else (producer, squares)


def _excess(circuit: Circuit, index: int, params: ParameterSet, magnitudes: Magnitudes, margin: float) -> float:
    """By how many bits the values' scale is too large."""
    step = circuit.steps[index]
    assert isinstance(step, steps.Matrix | steps.Combine), "only linear steps stay unrescaled"
    entries = step.diagonals if isinstance(step, steps.Matrix) else step.weights
    weight = float(np.abs(entries).max(initial=0.0)) or 1.0
    value = magnitudes.values[reads(step)[0]] or 1.0
    result = max(magnitudes.values[made] for made in makes(step)) * margin
    room = log2(prod(params.q_moduli(0))) - HEADROOM_BITS - log2(max(result, 1.0))
    best = (room + log2(sqrt(24.0 * params.n) / 6.0 * weight / value)) / 2
    return min(log2(params.scale) - best, MOST_BITS)


__all__ = ["HEADROOM_BITS", "balanced"]
