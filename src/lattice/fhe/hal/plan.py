"""A checked program as plain numbers, for an executor that knows no Python: see `native/program/plan.hpp` for the form.

The interpreter itself makes it: it runs the program on symbolic ciphertexts, and `Lowering` notes each primitive step
instead of computing it. So a plan has exactly the interpreter's steps, with series lowered to products, constants
rounded to residues, Galois elements instead of steps, and each register freed as soon as nothing reads it any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.ckks.evaluation_keys import RELINEARISATION, KeySpec
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.hal import interpreter, rules
from lattice.fhe.hal.composites import ProductPlan, Terms
from lattice.fhe.hal.operations import rounded_at
from lattice.fhe.hal.program import Program
from lattice.fhe.hal.rules import CiphertextType, PlaintextType
from lattice.fhe.ring.automorphism import conjugation_element, rotation_element

MAGIC = int.from_bytes(b"LatPlan1", "little")
NO_KEY = (1 << 64) - 1
"""In place of the key of a step by zero."""


class Op(IntEnum):
    """As in `plan.hpp`."""

    INPUT = 0
    ADD = 1
    SUBTRACT = 2
    NEGATE = 3
    ADD_PLAIN = 4
    MULTIPLY_PLAIN = 5
    ADD_CONSTANT = 6
    SCALE = 7
    MULTIPLY = 8
    RELINEARISE = 9
    RESCALE = 10
    DROP = 11
    ROTATE = 12
    ROTATE_SUM = 13
    MATRIX = 14
    SUM_PLAIN = 15
    SUM_PERIODIC = 16
    FREE = 17


class WeightKind(IntEnum):
    """As in `plan.hpp`."""

    PLAINTEXT = 0
    PLAINTEXTS = 1
    DIAGONALS = 2
    PERIODIC = 3


class Cipher(NamedTuple):
    """A ciphertext that is not there: its register and type."""

    register: int
    kind: CiphertextType


class Plain(NamedTuple):
    """A weight's number and type."""

    weight: int
    kind: PlaintextType


class Step(NamedTuple):
    """One instruction of a plan, and which registers it reads and defines."""

    op: Op
    operands: tuple[int, ...]
    reads: tuple[int, ...]
    defines: tuple[int, ...]


class Plan(NamedTuple):
    """The numbers, and the keys whose tensors a run takes, in order."""

    words: NDArray[np.uint64]
    keys: tuple[KeySpec, ...]


def plan_of(program: Program) -> Plan:
    """Lower a program, which is checked first."""
    checked = program.checked
    on = Lowering(program.params, sorted(checked.uses))
    inputs = [on.load(index, entry.kind) for index, entry in enumerate(program.inputs)]
    weights = [Plain(index, entry.kind) for index, entry in enumerate(program.weights)]
    symbolic: Any = on, inputs, weights
    outputs: Any = interpreter.interpret(symbolic[0], program, checked, symbolic[1], symbolic[2])
    registers = [x.register for x in outputs]
    code = list(_code(on.steps, registers))
    numbers = [*_header(program, on, registers, len(code)), *code]
    return Plan(np.array(numbers, dtype=np.uint64), tuple(on.keys))


def _header(program: Program, on: Lowering, outputs: Sequence[int], code: int) -> Iterable[int]:
    params = program.params
    levels = range(params.max_level + 1)
    yield from (MAGIC, params.log_n, len(levels), len(program.inputs), len(program.weights), len(on.keys))
    yield from (on.registers, len(outputs), code)
    yield from (len(params.q_moduli(level)) for level in levels)
    yield from (len(params.special), *params.q_moduli(params.max_level), *params.special)
    for level in levels:
        digits = params.key_switch_context(level, level).digits if params.special else ()
        yield from (len(digits), *(bound for digit in digits for bound in digit))
    yield from (entry.level for entry in program.inputs)
    for weight in program.weights:
        yield from _weight(weight.kind, params.n)
    yield from (number for spec in on.keys for number in spec)
    yield from outputs


def _weight(kind: PlaintextType, n: int) -> tuple[int, int, int, int]:
    values = n
    if kind.period:
        what, values = WeightKind.PERIODIC, 2 * kind.period if kind.period > 1 else 1
    elif kind.members:
        what = WeightKind.DIAGONALS if kind.extended else WeightKind.PLAINTEXTS
    else:
        what = WeightKind.PLAINTEXT
    return what, kind.level, kind.members, values


def _code(steps: Sequence[Step], outputs: Sequence[int]) -> Iterable[int]:
    """The steps, each followed by what is dead after it."""
    last: dict[int, int] = {}
    for index, step in enumerate(steps):
        last |= dict.fromkeys((*step.reads, *step.defines), index)
    dead: dict[int, list[int]] = {}
    for register in last.keys() - set(outputs):
        dead.setdefault(last[register], []).append(register)
    for index, step in enumerate(steps):
        yield from (step.op, len(step.operands), *step.operands)
        for register in sorted(dead.get(index, ())):
            yield from (Op.FREE, 1, register)


class Lowering:
    """What `Operations` does, noted instead of done; the same rules give the same types."""

    def __init__(self, params: ParameterSet, keys: Sequence[KeySpec]) -> None:
        self.params = params
        self.keys = keys
        self.steps: list[Step] = []
        self.registers = 0
        self._key_numbers = {spec: number for number, spec in enumerate(keys)}

    def type_of(self, x: Cipher) -> CiphertextType:
        """As noted."""
        return x.kind

    def load(self, index: int, kind: CiphertextType) -> Cipher:
        """An input."""
        return self._one(Op.INPUT, (), kind, index)

    def _one(self, op: Op, reads: Sequence[Cipher], kind: CiphertextType, *more: int) -> Cipher:
        """Note a step of one result: its operands are the result, what it reads, and the rest."""
        (out,) = self._new(1)
        registers = tuple(x.register for x in reads)
        self.steps.append(Step(op, (out, *registers, *more), registers, (out,)))
        return Cipher(out, kind)

    def _new(self, count: int) -> tuple[int, ...]:
        self.registers += count
        return tuple(range(self.registers - count, self.registers))

    def _residues(self, value: int, kind: CiphertextType) -> list[int]:
        return [value % q for q in self.params.q_moduli(kind.level)]

    def _key(self, element: int, level: int) -> int:
        return self._key_numbers[KeySpec(element, level)]

    def _turn(self, steps: int, level: int) -> int:
        return self._key(rotation_element(steps, self.params.n), level)

    # --- linear -------------------------------------------------------------------------------------------

    def add(self, x: Cipher, y: Cipher) -> Cipher:
        """x + y."""
        return self._one(Op.ADD, (x, y), rules.add(x.kind, y.kind))

    def subtract(self, x: Cipher, y: Cipher) -> Cipher:
        """x − y."""
        return self._one(Op.SUBTRACT, (x, y), rules.add(x.kind, y.kind))

    def negate(self, x: Cipher) -> Cipher:
        """−x."""
        return self._one(Op.NEGATE, (x,), x.kind)

    def add_plain(self, x: Cipher, plain: Plain) -> Cipher:
        """x + plain."""
        return self._one(Op.ADD_PLAIN, (x,), rules.add_plain(x.kind, plain.kind), plain.weight)

    def multiply_plain(self, x: Cipher, plain: Plain) -> Cipher:
        """x ⊙ plain."""
        kind = rules.multiply_plain(self.params, x.kind, plain.kind)
        return self._one(Op.MULTIPLY_PLAIN, (x,), kind, plain.weight)

    def add_constant(self, x: Cipher, value: float) -> Cipher:
        """x + value, rounded at x's scale."""
        kind = rules.add_constant(x.kind)
        return self._one(Op.ADD_CONSTANT, (x,), kind, *self._residues(rounded_at(value, kind.scale), kind))

    def multiply_constant(self, x: Cipher, value: float, scale: Fraction) -> Cipher:
        """x·value, rounded at `scale`."""
        kind = rules.multiply_constant(self.params, x.kind, scale)
        return self._one(Op.SCALE, (x,), kind, *self._residues(rounded_at(value, scale), kind))

    # --- products and levels ------------------------------------------------------------------------------

    def multiply(self, x: Cipher, y: Cipher) -> Cipher:
        """x ⊙ y."""
        return self._one(Op.MULTIPLY, (x, y), rules.multiply(self.params, x.kind, y.kind))

    def relinearise(self, x: Cipher) -> Cipher:
        """Three components to two."""
        kind = rules.relinearise(x.kind)
        return self._one(Op.RELINEARISE, (x,), kind, self._key(RELINEARISATION, kind.level))

    def rescale(self, x: Cipher) -> Cipher:
        """One level down."""
        return self._one(Op.RESCALE, (x,), rules.rescale(self.params, x.kind))

    def drop(self, x: Cipher, level: int) -> Cipher:
        """To a lower level."""
        kind = rules.drop(self.params, x.kind, level)
        return x if level == x.kind.level else self._one(Op.DROP, (x,), kind, level)

    def settle(self, x: Cipher) -> Cipher:
        """The same register with a shorter scale."""
        return Cipher(x.register, rules.settle(x.kind))

    # --- automorphisms ------------------------------------------------------------------------------------

    def rotate(self, x: Cipher, steps: int) -> Cipher:
        """Turned left."""
        return self.rotate_hoisted(x, [steps])[0]

    def rotate_hoisted(self, x: Cipher, steps: Sequence[int]) -> list[Cipher]:
        """Several rotations; each step once, and none for zero, as in `Operations`."""
        kind = rules.rotate(x.kind)
        turns = [step % self.params.slots for step in steps]
        moving = sorted(set(turns) - {0})
        done = {0: x}
        if moving:
            done |= zip(moving, self._rotations(x, [self._turn(step, kind.level) for step in moving]), strict=True)
        return [done[turn] for turn in turns]

    def _rotations(self, x: Cipher, keys: Sequence[int]) -> list[Cipher]:
        outs = self._new(len(keys))
        pairs = (number for pair in zip(outs, keys, strict=True) for number in pair)
        self.steps.append(Step(Op.ROTATE, (x.register, *pairs), (x.register,), outs))
        return [Cipher(out, x.kind) for out in outs]

    def conjugate(self, x: Cipher) -> Cipher:
        """Complex conjugation."""
        kind = rules.rotate(x.kind)
        return self._rotations(x, [self._key(conjugation_element(self.params.n), kind.level)])[0]

    def rotate_sum(self, x: Cipher, steps: Sequence[int]) -> Cipher:
        """x and its rotations added up."""
        kind = rules.rotate(x.kind)
        return self._one(Op.ROTATE_SUM, (x,), kind, *(self._turn(step, kind.level) for step in steps))

    # --- sums of products ---------------------------------------------------------------------------------

    def matrix(self, inputs: Sequence[Cipher], diagonals: Plain, plan: ProductPlan) -> list[Cipher]:
        """Matrix–vector products."""
        kind = rules.matrix(self.params, [x.kind for x in inputs], diagonals.kind)
        babies, giants = (
            [NO_KEY if step == 0 else self._turn(step, kind.level) for step in steps]
            for steps in (plan.babies, plan.giants)
        )
        tail = [len(babies), *babies, len(giants), *giants]
        for of_out in plan.terms:
            for terms in of_out:
                tail += [len(terms), *(number for term in terms for number in term)]
        return self._sums(Op.MATRIX, inputs, diagonals, kind, len(plan.terms), tail)

    def sum_plain(self, inputs: Sequence[Cipher], plain: Plain, terms: Terms) -> list[Cipher]:
        """Sums of products with plaintexts."""
        kind = rules.sum_plain(self.params, [x.kind for x in inputs], plain.kind)
        tail = [number for of_out in terms for number in (len(of_out), *(n for term in of_out for n in term))]
        return self._sums(Op.SUM_PLAIN, inputs, plain, kind, len(terms), tail)

    def sum_periodic(self, inputs: Sequence[Cipher], plain: Plain, outs: int) -> list[Cipher]:
        """The same with plaintexts that repeat."""
        kind = rules.sum_periodic(self.params, [x.kind for x in inputs], plain.kind, outs)
        return self._sums(Op.SUM_PERIODIC, inputs, plain, kind, outs, ())

    def _sums(
        self, op: Op, inputs: Sequence[Cipher], plain: Plain, kind: CiphertextType, count: int, tail: Sequence[int]
    ) -> list[Cipher]:
        outs = self._new(count)
        registers = tuple(x.register for x in inputs)
        operands = (plain.weight, len(registers), *registers, len(outs), *outs, *tail)
        self.steps.append(Step(op, operands, registers, outs))
        return [Cipher(out, kind) for out in outs]
