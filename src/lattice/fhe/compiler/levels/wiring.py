"""What a circuit's steps read and make, and the checks that everything later relies on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.circuit import JUNK, Circuit, Step
from lattice.fhe.hal import polynomial

UNIT = (-1.0, 1.0)


class Edge(NamedTuple):
    """Operand number `operand` of step number `step`."""

    step: int
    operand: int


def reads(step: Step) -> tuple[int, ...]:
    """The values that a step reads, in order."""
    if isinstance(step, steps.Matrix | steps.Combine):
        return step.inputs
    if isinstance(step, steps.Add | steps.Subtract | steps.Multiply):
        return (step.a, step.b)
    if isinstance(step, steps.Rotate | steps.Square | steps.Polynomial):
        return (step.a,)
    raise invalid(f"a step of kind {type(step).__name__}")


def makes(step: Step) -> tuple[int, ...]:
    """The values that a step defines."""
    if isinstance(step, steps.Matrix | steps.Combine):
        return step.outs
    out: int = step.out  # type: ignore[attr-defined]
    return (out,)


def depth_of(step: Step) -> int:
    """Levels that a step takes."""
    if isinstance(step, steps.Matrix | steps.Combine | steps.Multiply | steps.Square):
        return 1
    if isinstance(step, steps.Polynomial):
        degree = len(polynomial.trimmed(step.coefficients)) - 1
        return polynomial.depth(degree) + (step.interval != UNIT)
    return 0


def is_linear(step: Step) -> bool:
    """Whether weights are encoded for it, at a scale that may be chosen."""
    return isinstance(step, steps.Matrix | steps.Combine)


def same_scale(step: Step) -> list[tuple[int, int]]:
    """Pairs of operand positions whose scales must be equal."""
    if isinstance(step, steps.Add | steps.Subtract):
        return [(0, 1)]
    if is_linear(step):
        return [(0, position) for position in range(1, len(reads(step)))]
    return []


def count_values(circuit: Circuit) -> int:
    """How many values there are."""
    return len(circuit.inputs) + sum(len(makes(step)) for step in circuit.steps)


def check(circuit: Circuit) -> None:
    """Every value is defined once and before it is read; arrays have the circuit's sizes."""
    known = set(range(len(circuit.inputs)))
    for index, step in enumerate(circuit.steps):
        if not set(reads(step)) <= known or not reads(step):
            raise invalid(f"step {index} reads a value that is not there")
        for value in makes(step):
            if value in known:
                raise invalid(f"step {index} defines value {value} again")
            known.add(value)
        _check_arrays(index, step, circuit.slots)
    if known != set(range(len(known))):
        raise invalid("its values are not numbered from 0")
    _check_interface(circuit, known)


def _check_interface(circuit: Circuit, known: set[int]) -> None:
    if not circuit.inputs or not circuit.outputs or len(circuit.outputs) != len(circuit.places):
        raise invalid("it has no input, no output, or outputs without places")
    if not set(circuit.outputs) <= known:
        raise invalid("an output is not one of its values")
    if any(len(layout) != circuit.slots for layout in (*circuit.inputs, *circuit.places)):
        raise invalid(f"a layout does not have {circuit.slots} slots")


def _check_arrays(index: int, step: Step, slots: int) -> None:
    if not isinstance(step, steps.Matrix | steps.Combine):
        return
    arrays = [step.diagonals if isinstance(step, steps.Matrix) else step.weights]
    arrays += [step.bias] if step.bias is not None else []
    if isinstance(step, steps.Matrix):
        fine = step.diagonals.ndim == 2 and all(array.shape[-1] == slots for array in arrays)
        fine = fine and len(step.terms) == len(step.outs)
    else:
        period = step.weights.shape[-1]
        fine = step.weights.shape[:-1] == (len(step.outs), len(step.inputs)) and slots % period == 0
    if not fine or not all(np.isfinite(array).all() for array in arrays):
        raise invalid(f"the weights of step {index} have the wrong shape or are not finite")


def masked(circuit: Circuit) -> Circuit:
    """The same circuit with every output that has junk multiplied by its mask: junk would tell about weights."""
    made, outputs, at = list(circuit.steps), list(circuit.outputs), count_values(circuit)
    for number, (output, places) in enumerate(zip(circuit.outputs, circuit.places, strict=True)):
        if (places == JUNK).any():
            keep = (places >= 0).astype(np.float64)[None, None, :]
            made.append(steps.Combine((at,), (output,), keep, layer="mask"))
            outputs[number], at = at, at + 1
    if len(made) == len(circuit.steps):
        return circuit
    return Circuit(circuit.slots, circuit.batch, circuit.inputs, tuple(made), tuple(outputs), circuit.places)


def readers(circuit: Circuit) -> dict[int, list[int]]:
    """Value → the steps that read it."""
    out: dict[int, list[int]] = {}
    for index, step in enumerate(circuit.steps):
        for value in reads(step):
            out.setdefault(value, []).append(index)
    return out


def last_linear(circuit: Circuit) -> frozenset[int]:
    """Linear steps whose results all leave at once: they may stay unrescaled at the lowest level."""
    used, outputs = readers(circuit), set(circuit.outputs)
    return frozenset(
        index
        for index, step in enumerate(circuit.steps)
        if is_linear(step) and all(value in outputs and value not in used for value in makes(step))
    )


def names(circuit: Circuit) -> Sequence[str]:
    """The layer of each step, or its kind where packing gave none."""
    return [step.layer or type(step).__name__.lower() for step in circuit.steps]


def invalid(what: str) -> LatticeError:
    """A fault of packing, not of the user; still a typed error."""
    return LatticeError("circuit_invalid", f"The circuit cannot be lowered: {what}.")
