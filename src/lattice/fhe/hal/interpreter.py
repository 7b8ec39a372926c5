"""The default way to run a whole program on any backend: one instruction after another, registers freed when dead.

A backend with its own `run(program, inputs, keys, weights, cancel)` gets the program whole instead, with equal bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from lattice.core.errors import LatticeError
from lattice.fhe.cancel import Cancel
from lattice.fhe.ckks.ciphertext import Ciphertext
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal import polynomial
from lattice.fhe.hal.backend import Backend
from lattice.fhe.hal.composites import ProductPlan
from lattice.fhe.hal.instructions import Instruction
from lattice.fhe.hal.operations import KeySource, Operations
from lattice.fhe.hal.program import Program, parse_scale
from lattice.fhe.hal.rules import CiphertextType, text
from lattice.fhe.hal.validation import Checked
from lattice.fhe.hal.weights import AnyPlaintext, plaintext_type


def run(
    backend: Backend,
    program: Program,
    inputs: Sequence[Ciphertext],
    keys: KeySource | None,
    weights: Sequence[AnyPlaintext] = (),
    cancel: Cancel | None = None,
) -> list[Ciphertext]:
    """The program's outputs. Whatever can be wrong is found before the first instruction runs.

    Raises `work_cancelled` between two instructions where `cancel` was called.
    """
    checked = program.checked
    on = Operations(program.params, keys, backend)
    _match_inputs(on, program, inputs)
    _match_weights(on, program, weights)
    _match_keys(on, checked)
    own = getattr(backend, "run", None)
    if own is not None:
        return list(own(program, inputs, keys, weights, cancel))
    return interpret(on, program, checked, inputs, weights, cancel)


def interpret(
    on: Operations,
    program: Program,
    checked: Checked,
    inputs: Sequence[Ciphertext],
    weights: Sequence[AnyPlaintext],
    cancel: Cancel | None = None,
) -> list[Ciphertext]:
    """Run what was checked and matched already."""
    registers: dict[int, Any] = {}
    freed = checked.freed()
    for index, instruction in enumerate(program.instructions):
        if cancel is not None:
            cancel.check(index)
        if isinstance(instruction, ops.LoadInput):
            registers[instruction.out] = inputs[instruction.input]
        elif isinstance(instruction, ops.LoadWeight):
            registers[instruction.out] = weights[instruction.weight]
        else:
            out = _STEPS[type(instruction)](on, registers, instruction)
            values = out if isinstance(out, list) else [out]
            registers |= zip(instruction.defines, values, strict=True)
        for register in freed.get(index, ()):
            del registers[register]
    return [registers[register] for register in program.outputs]


def _match_inputs(on: Operations, program: Program, inputs: Sequence[Ciphertext]) -> None:
    if len(inputs) != len(program.inputs):
        raise LatticeError("circuit_invalid", f"The program takes {len(program.inputs)} inputs, not {len(inputs)}.")
    for index, (value, wanted) in enumerate(zip(inputs, program.inputs, strict=True)):
        if on.type_of(value) != wanted.kind:
            raise _differs(f"Input {index}", on.type_of(value), wanted.kind)


def _match_weights(on: Operations, program: Program, weights: Sequence[AnyPlaintext]) -> None:
    if len(weights) != len(program.weights):
        raise LatticeError("circuit_invalid", f"The program takes {len(program.weights)} weights, not {len(weights)}.")
    for index, (value, wanted) in enumerate(zip(weights, program.weights, strict=True)):
        on.check_plain(value)
        if plaintext_type(value) != wanted.kind:
            raise _differs(f"Weight {index}", plaintext_type(value), wanted.kind)


def _match_keys(on: Operations, checked: Checked) -> None:
    for need in checked.keys:
        on.key(need.element, need.level)


def _differs(what: str, has: Any, wanted: Any) -> LatticeError:
    if has.level != wanted.level:
        return LatticeError("level_mismatch", f"{what} is at level {has.level}, the program wants {wanted.level}.")
    return LatticeError("scale_mismatch", f"{what} is {_show(has)}; the program wants {_show(wanted)}.")


def _show(kind: Any) -> str:
    if isinstance(kind, CiphertextType):
        extra = f", {kind.components} components"
    else:
        extra = f", {kind.members} of them, period {kind.period}" + ", extended" * kind.extended
    return f"{kind.encoding} at scale {text(kind.scale)}{extra}"


Registers = dict[int, Any]


def _matrix(on: Operations, r: Registers, i: ops.Matrix) -> list[Ciphertext]:
    plan = ProductPlan(i.babies, i.giants, i.terms)
    return on.matrix([r[at] for at in i.inputs], r[i.plain], plan)


def _chebyshev(on: Operations, r: Registers, i: ops.Chebyshev) -> Ciphertext:
    x: Ciphertext = r[i.a]
    return polynomial.evaluate(on, x, i.coefficients, parse_scale(i.scale), i.split)


def _sum_slots(on: Operations, r: Registers, i: ops.SumSlots) -> Ciphertext:
    out: Ciphertext = r[i.a]
    for stage in i.stages:
        out = on.rotate_sum(out, stage)
    return out


_STEPS: dict[type[Instruction], Callable[[Operations, Registers, Any], Ciphertext | list[Ciphertext]]] = cast(
    Any,
    {
        ops.Add: lambda on, r, i: on.add(r[i.a], r[i.b]),
        ops.Subtract: lambda on, r, i: on.subtract(r[i.a], r[i.b]),
        ops.Negate: lambda on, r, i: on.negate(r[i.a]),
        ops.AddPlain: lambda on, r, i: on.add_plain(r[i.a], r[i.plain]),
        ops.MultiplyPlain: lambda on, r, i: on.multiply_plain(r[i.a], r[i.plain]),
        ops.AddConstant: lambda on, r, i: on.add_constant(r[i.a], i.value),
        ops.MultiplyConstant: lambda on, r, i: on.multiply_constant(r[i.a], i.value, parse_scale(i.scale)),
        ops.Multiply: lambda on, r, i: on.multiply(r[i.a], r[i.b]),
        ops.Relinearise: lambda on, r, i: on.relinearise(r[i.a]),
        ops.Rescale: lambda on, r, i: on.rescale(r[i.a]),
        ops.Drop: lambda on, r, i: on.drop(r[i.a], i.level),
        ops.Rotate: lambda on, r, i: on.rotate(r[i.a], i.steps),
        ops.RotateHoisted: lambda on, r, i: on.rotate_hoisted(r[i.a], i.steps),
        ops.Conjugate: lambda on, r, i: on.conjugate(r[i.a]),
        ops.Matrix: _matrix,
        ops.SumPlain: lambda on, r, i: on.sum_plain([r[at] for at in i.inputs], r[i.plain], i.terms),
        ops.SumPeriodic: lambda on, r, i: on.sum_periodic([r[at] for at in i.inputs], r[i.plain], len(i.outs)),
        ops.Chebyshev: _chebyshev,
        ops.SumSlots: _sum_slots,
    },
)
