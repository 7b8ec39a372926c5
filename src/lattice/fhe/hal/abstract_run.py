"""The abstract run of a program: one rule for each instruction gives its results' types and notes the keys it uses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, NoReturn, cast

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.evaluation_keys import RELINEARISATION, KeySpec
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal import polynomial, rules
from lattice.fhe.hal.composites import ProductPlan, check_plan, check_terms
from lattice.fhe.hal.instructions import Instruction
from lattice.fhe.hal.program import Program, parse_scale
from lattice.fhe.hal.rules import CiphertextType, PlaintextType
from lattice.fhe.ring.automorphism import conjugation_element, rotation_element

MAX_TERMS = 1 << 20
"""Products in one instruction that lists them."""
MAX_STAGES = 32

Kind = CiphertextType | PlaintextType


@dataclass
class AbstractRun:
    """The registers' types so far, and what was used."""

    program: Program
    types: dict[int, Kind] = field(default_factory=dict)
    uses: set[KeySpec] = field(default_factory=set)

    @property
    def params(self) -> ParameterSet:
        """The program's."""
        return self.program.params

    def step(self, instruction: Instruction) -> None:
        """Check one instruction and define its registers."""
        for register in instruction.reads:
            if register not in self.types:
                invalid(f"register {register} is read before it is defined")
        out = TYPE_RULES[type(instruction)](self, instruction)
        kinds = out if isinstance(out, list) else [out]
        if len(kinds) != len(instruction.defines) or not kinds:
            invalid(f"{len(kinds)} results and {len(instruction.defines)} registers")
        for register, kind in zip(instruction.defines, kinds, strict=True):
            if register != len(self.types):
                invalid(f"it defines register {register}; the next one is {len(self.types)}")
            self.types[register] = kind

    def cipher(self, register: int) -> CiphertextType:
        """The type of a ciphertext register."""
        kind = self.types[register]
        if not isinstance(kind, CiphertextType):
            invalid(f"register {register} is a plaintext, a ciphertext is needed")
        return kind

    def ciphers(self, registers: tuple[int, ...]) -> list[CiphertextType]:
        """The types of several."""
        return [self.cipher(register) for register in registers]

    def plain(self, register: int) -> PlaintextType:
        """The type of a plaintext register."""
        kind = self.types[register]
        if not isinstance(kind, PlaintextType):
            invalid(f"register {register} is a ciphertext, a plaintext is needed")
        return kind

    def use(self, element: int, level: int) -> None:
        """Note a key."""
        if not self.params.special:
            invalid("these parameters have no special primes, so there are no evaluation keys")
        self.uses.add(KeySpec(element, level))

    def turn(self, steps: tuple[int, ...], level: int) -> None:
        """Note rotation keys; steps are 1 … slots − 1."""
        for step in steps:
            if not 0 < step < self.params.slots:
                invalid(f"a rotation by {step} is outside 1 … {self.params.slots - 1}")
            self.use(rotation_element(step, self.params.n), level)


def invalid(message: str) -> NoReturn:
    """What does not fit; `validation` adds which instruction it was."""
    raise LatticeError("program_invalid", f"{message}.")


def _load_input(run: AbstractRun, i: ops.LoadInput) -> Kind:
    if not 0 <= i.input < len(run.program.inputs):
        invalid(f"there is no input {i.input}")
    return run.program.inputs[i.input].kind


def _load_weight(run: AbstractRun, i: ops.LoadWeight) -> Kind:
    if not 0 <= i.weight < len(run.program.weights):
        invalid(f"there is no weight {i.weight}")
    return run.program.weights[i.weight].kind


def _multiply_constant(run: AbstractRun, i: ops.MultiplyConstant) -> Kind:
    _finite(i.value)
    return rules.multiply_constant(run.params, run.cipher(i.a), parse_scale(i.scale))


def _add_constant(run: AbstractRun, i: ops.AddConstant) -> Kind:
    _finite(i.value)
    return rules.add_constant(run.cipher(i.a))


def _relinearise(run: AbstractRun, i: ops.Relinearise) -> Kind:
    kind = rules.relinearise(run.cipher(i.a))
    run.use(RELINEARISATION, kind.level)
    return kind


def _rotate(run: AbstractRun, i: ops.Rotate) -> Kind:
    kind = rules.rotate(run.cipher(i.a))
    run.turn(i.rotations, kind.level)
    return kind


def _rotate_hoisted(run: AbstractRun, i: ops.RotateHoisted) -> list[Kind]:
    if not 0 < len(i.steps) == len(i.outs) <= run.params.slots:
        invalid(f"{len(i.steps)} steps and {len(i.outs)} results")
    kind = rules.rotate(run.cipher(i.a))
    run.turn(i.rotations, kind.level)
    return [kind] * len(i.outs)


def _conjugate(run: AbstractRun, i: ops.Conjugate) -> Kind:
    kind = rules.rotate(run.cipher(i.a))
    run.use(conjugation_element(run.params.n), kind.level)
    return kind


def _matrix(run: AbstractRun, i: ops.Matrix) -> list[Kind]:
    plain = run.plain(i.plain)
    kind = rules.matrix(run.params, run.ciphers(i.inputs), plain)
    _bounded_terms(sum(len(terms) for out in i.terms for terms in out), len(i.outs), len(i.terms))
    check_plan(ProductPlan(i.babies, i.giants, i.terms), len(i.inputs), plain.members)
    run.turn(i.rotations, kind.level)
    return [kind] * len(i.outs)


def _sum_plain(run: AbstractRun, i: ops.SumPlain) -> list[Kind]:
    plain = run.plain(i.plain)
    kind = rules.sum_plain(run.params, run.ciphers(i.inputs), plain)
    _bounded_terms(sum(map(len, i.terms)), len(i.outs), len(i.terms))
    check_terms(i.terms, len(i.inputs), plain.members)
    return [kind] * len(i.outs)


def _sum_periodic(run: AbstractRun, i: ops.SumPeriodic) -> list[Kind]:
    kind = rules.sum_periodic(run.params, run.ciphers(i.inputs), run.plain(i.plain), len(i.outs))
    return [kind] * len(i.outs)


def _bounded_terms(terms: int, outs: int, listed: int) -> None:
    if terms > MAX_TERMS:
        invalid(f"more than {MAX_TERMS} products")
    if outs != listed:
        invalid(f"{outs} results and terms for {listed}")


def _chebyshev(run: AbstractRun, i: ops.Chebyshev) -> Kind:
    if not 1 <= i.split <= polynomial.MAX_DEGREE.bit_length():
        invalid(f"a split of {i.split}")
    counter = polynomial.TypeArithmetic(run.params)
    out = polynomial.evaluate(counter, run.cipher(i.a), i.coefficients, parse_scale(i.scale), i.split)
    for level in counter.relinearised_at:
        run.use(RELINEARISATION, level)
    return out


def _sum_slots(run: AbstractRun, i: ops.SumSlots) -> Kind:
    kind = rules.rotate(run.cipher(i.a))
    if not 0 < len(i.stages) <= MAX_STAGES or not all(0 < len(s) < run.params.slots for s in i.stages):
        invalid(f"{len(i.stages)} stages of {[len(stage) for stage in i.stages[:MAX_STAGES]]} steps")
    run.turn(i.rotations, kind.level)
    return kind


TYPE_RULES: dict[type[Instruction], Callable[[AbstractRun, Any], Kind | list[Kind]]] = cast(
    Any,
    {
        ops.LoadInput: _load_input,
        ops.LoadWeight: _load_weight,
        ops.Add: lambda run, i: rules.add(run.cipher(i.a), run.cipher(i.b)),
        ops.Subtract: lambda run, i: rules.add(run.cipher(i.a), run.cipher(i.b)),
        ops.Negate: lambda run, i: run.cipher(i.a),
        ops.AddPlain: lambda run, i: rules.add_plain(run.cipher(i.a), run.plain(i.plain)),
        ops.MultiplyPlain: lambda run, i: rules.multiply_plain(run.params, run.cipher(i.a), run.plain(i.plain)),
        ops.AddConstant: _add_constant,
        ops.MultiplyConstant: _multiply_constant,
        ops.Multiply: lambda run, i: rules.multiply(run.params, run.cipher(i.a), run.cipher(i.b)),
        ops.Relinearise: _relinearise,
        ops.Rescale: lambda run, i: rules.rescale(run.params, run.cipher(i.a)),
        ops.Drop: lambda run, i: rules.drop(run.params, run.cipher(i.a), i.level),
        ops.Rotate: _rotate,
        ops.RotateHoisted: _rotate_hoisted,
        ops.Conjugate: _conjugate,
        ops.Matrix: _matrix,
        ops.SumPlain: _sum_plain,
        ops.SumPeriodic: _sum_periodic,
        ops.Chebyshev: _chebyshev,
        ops.SumSlots: _sum_slots,
    },
)


def _finite(value: float) -> None:
    if not (isfinite(value) and abs(value) < 2.0**40):
        invalid("the constant is not a number below 2^40")
