"""One circuit, over given precision and ring, as a program: levels, primes, scales, lowering."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, log2, prod

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import Circuit
from lattice.fhe.compiler.client_part import Packed
from lattice.fhe.compiler.levels import parameters, wiring
from lattice.fhe.compiler.levels.assign import Assignment, Scales, assign
from lattice.fhe.compiler.levels.balance import HEADROOM_BITS, balanced
from lattice.fhe.compiler.levels.lower import Lowered, chain_of, lower
from lattice.fhe.compiler.levels.options import Options
from lattice.fhe.compiler.levels.parameters import BASE_BITS, Need
from lattice.fhe.compiler.levels.trace import Magnitudes
from lattice.fhe.compiler.levels.wiring import Edge, makes
from lattice.fhe.hal.program import Input, Program, scale_text

MIN_WEIGHT_BITS = 12
"""An unrescaled step whose weights would be rounded more coarsely than this is rescaled instead."""
TWO_PRIMES = (BASE_BITS, BASE_BITS)


@dataclass(frozen=True, eq=False)
class Built:
    """A program with everything that was decided on the way."""

    circuit: Circuit
    assignment: Assignment
    params: ParameterSet
    lowered: Lowered
    magnitudes: Magnitudes

    @property
    def program(self) -> Program:
        """The program."""
        return self.lowered.program

    @property
    def inputs(self) -> tuple[Packed, ...]:
        """The client's side of the inputs."""
        return tuple(
            Packed(entries, declared.level, declared.scale)
            for entries, declared in zip(self.circuit.inputs, self.program.inputs, strict=True)
        )

    @property
    def outputs(self) -> tuple[Packed, ...]:
        """And of the outputs."""
        kinds = self.program.checked.outputs
        return tuple(
            Packed(np.where(places >= 0, places, -1).astype(np.int32), kind.level, scale_text(kind.scale))
            for places, kind in zip(self.circuit.places, kinds, strict=True)
        )


def build(
    circuit: Circuit,
    magnitudes: Magnitudes,
    options: Options,
    *,
    scale_bits: int,
    fold_first: bool = True,
    rescale_last: bool = False,
    balance: bool = False,
    log_n: int | None = None,
) -> Built:
    """The smallest secure chain at this scale, then the program; `model_too_deep` where there is none.

    A last linear step stays unrescaled, which saves a level, unless `rescale_last` says otherwise or its results would
    leave too few bits for its weights. `balance` has it read values of a smaller scale, for weights of a larger one.

    `circuit` is masked already and `magnitudes` are of its values. Without `log_n` the ring has as many slots as the
    circuit.
    """
    wiring.check(circuit)
    ring = log_n or circuit.slots.bit_length()
    faults = []
    last = frozenset[int]() if rescale_last else wiring.last_linear(circuit)
    for unrescaled in dict.fromkeys([last, frozenset[int]()]):
        assignment = assign(circuit, unrescaled=unrescaled)
        need = needed(circuit, assignment, magnitudes, options, scale_bits)
        try:
            params = parameters.choose(need, ring, options.security)
        except LatticeError as fault:
            faults.append(fault)
            continue
        if balance:
            assignment = balanced(circuit, assignment, params, magnitudes, options.margin)
        scales = weight_scales(circuit, assignment, params, magnitudes, options)
        if scales is not None:
            lowered = lower(circuit, assignment, params, weight_scales=scales, fold_first=fold_first)
            return Built(circuit, assignment, params, lowered, magnitudes)
    raise faults[0]


def needed(circuit: Circuit, assignment: Assignment, magnitudes: Magnitudes, options: Options, scale_bits: int) -> Need:
    """The chain that an assignment asks for."""
    largest = max(magnitudes.values[value] for value in circuit.outputs)
    held = scale_bits + ceil(log2(max(largest * options.margin, 1.0))) + HEADROOM_BITS
    if assignment.unrescaled or held + 8 >= BASE_BITS:
        base: tuple[int, ...] = (BASE_BITS,)
    else:
        base = (held + 8,)
    if held > sum(base):
        base = TWO_PRIMES
    return Need(assignment.depth, scale_bits, base, needs_keys(circuit))


def needs_keys(circuit: Circuit) -> bool:
    """Whether any step switches keys."""
    for step in circuit.steps:
        if isinstance(step, steps.Matrix) and (step.fold or set(step.babies) | set(step.giants) != {0}):
            return True
        if isinstance(step, steps.Combine) and step.fold:
            return True
        if isinstance(step, steps.Rotate | steps.Multiply | steps.Square | steps.Polynomial):
            return True
    return False


def weight_scales(
    circuit: Circuit, assignment: Assignment, params: ParameterSet, magnitudes: Magnitudes, options: Options
) -> dict[int, Fraction] | None:
    """For each unrescaled step the largest power of two under which its results fit; None where one is too small."""
    scales = Scales(circuit, assignment, chain_of(params))
    out: dict[int, Fraction] = {}
    for index in assignment.unrescaled:
        step = circuit.steps[index]
        assert isinstance(step, steps.Matrix | steps.Combine), "only linear steps stay unrescaled"
        entries = step.diagonals if isinstance(step, steps.Matrix) else step.weights
        modulus = prod(params.q_moduli(assignment.step_levels[index]))
        result = max(magnitudes.values[value] for value in makes(step)) * options.margin
        source = scales.operand(Edge(index, 0))
        room = log2(modulus) - HEADROOM_BITS - log2(max(result, 1.0)) - log2(source.numerator / source.denominator)
        entry = float(np.abs(entries).max(initial=1.0))
        bits = floor(min(room, log2(modulus) - HEADROOM_BITS - log2(entry)))
        if bits < MIN_WEIGHT_BITS:
            return None
        out[index] = Fraction(1 << bits)
    return out


__all__ = ["Built", "Input", "build"]
