"""The instructions of a program: plain data, each defining one register (`outs`: several) exactly once.

Registers are numbered from 0. `a`, `b` and `inputs` name ciphertext registers, `plain` a plaintext register. Rotations
are in slots to the left, 1 to N/2 − 1. Masking is `multiply_plain` by a mask, re-randomising is `add` of an encryption
of zero that comes in as an input: neither needs an instruction of its own.
"""

from __future__ import annotations

import msgspec


class Instruction(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op"):
    """What all have in common: what they read, what they define, and which rotations they perform."""

    @property
    def reads(self) -> tuple[int, ...]:
        """Ciphertext and plaintext registers, in order."""
        single = tuple(getattr(self, name) for name in ("a", "b", "plain") if hasattr(self, name))
        return (*getattr(self, "inputs", ()), *single)

    @property
    def defines(self) -> tuple[int, ...]:
        """Registers that exist afterwards."""
        return (self.out,) if hasattr(self, "out") else tuple(getattr(self, "outs", ()))

    @property
    def rotations(self) -> tuple[int, ...]:
        """Steps, all at the level of `a` or of the inputs."""
        return ()


class LoadInput(Instruction, frozen=True, tag="load_input"):
    """The program's input number `input`."""

    out: int
    input: int


class LoadWeight(Instruction, frozen=True, tag="load_weight"):
    """The program's weight number `weight`; a backend may upload it here and free it after its last use."""

    out: int
    weight: int


class Add(Instruction, frozen=True, tag="add"):
    """a + b."""

    out: int
    a: int
    b: int


class Subtract(Instruction, frozen=True, tag="sub"):
    """a − b."""

    out: int
    a: int
    b: int


class Negate(Instruction, frozen=True, tag="neg"):
    """−a."""

    out: int
    a: int


class AddPlain(Instruction, frozen=True, tag="add_plain"):
    """a + plain."""

    out: int
    a: int
    plain: int


class MultiplyPlain(Instruction, frozen=True, tag="mul_plain"):
    """a ⊙ plain, unrescaled."""

    out: int
    a: int
    plain: int


class AddConstant(Instruction, frozen=True, tag="add_constant"):
    """a + value in every slot."""

    out: int
    a: int
    value: float


class MultiplyConstant(Instruction, frozen=True, tag="mul_constant"):
    """a·value, the value rounded at `scale`; unrescaled."""

    out: int
    a: int
    value: float
    scale: str


class Multiply(Instruction, frozen=True, tag="mul"):
    """a ⊙ b with three components."""

    out: int
    a: int
    b: int


class Relinearise(Instruction, frozen=True, tag="relinearise"):
    """Three components to two."""

    out: int
    a: int


class Rescale(Instruction, frozen=True, tag="rescale"):
    """One level down, the scale divided."""

    out: int
    a: int


class Drop(Instruction, frozen=True, tag="drop"):
    """To a lower level, the scale kept."""

    out: int
    a: int
    level: int


class Rotate(Instruction, frozen=True, tag="rotate"):
    """a turned left by `steps` slots."""

    out: int
    a: int
    steps: int

    @property
    def rotations(self) -> tuple[int, ...]:
        """The one."""
        return (self.steps,)


class RotateHoisted(Instruction, frozen=True, tag="rotate_hoisted"):
    """Several rotations of one ciphertext."""

    outs: tuple[int, ...]
    a: int
    steps: tuple[int, ...]

    @property
    def rotations(self) -> tuple[int, ...]:
        """As listed."""
        return self.steps


class Conjugate(Instruction, frozen=True, tag="conjugate"):
    """Complex conjugation of every slot."""

    out: int
    a: int


class Matrix(Instruction, frozen=True, tag="matrix"):
    """Double-hoisted matrix–vector products: outs[a] = Σ_j rot_{giants[j]}( Σ diagonals[d] ⊙ rot_{babies[b]}(inputs[i])
    over (i, b, d) in terms[a][j] ), unrescaled; `plain` holds extended diagonals. Steps may be 0.

    Every input is decomposed once and every baby step of it made once, whatever the number of results.
    """

    outs: tuple[int, ...]
    inputs: tuple[int, ...]
    plain: int
    babies: tuple[int, ...]
    giants: tuple[int, ...]
    terms: tuple[tuple[tuple[tuple[int, int, int], ...], ...], ...]

    @property
    def rotations(self) -> tuple[int, ...]:
        """All but the zeros, each once."""
        return tuple(sorted(set(self.babies + self.giants) - {0}))


class SumPlain(Instruction, frozen=True, tag="sum_plain"):
    """outs[a] = Σ plain[d] ⊙ inputs[i] over (i, d) in terms[a], unrescaled; `plain` holds plaintexts that are not
    extended. No key is needed."""

    outs: tuple[int, ...]
    inputs: tuple[int, ...]
    plain: int
    terms: tuple[tuple[tuple[int, int], ...], ...]


class SumPeriodic(Instruction, frozen=True, tag="sum_periodic"):
    """outs[a] = Σ_i plain[a, i] ⊙ inputs[i], unrescaled; `plain` holds plaintexts whose slots repeat with a short
    period, outs × inputs of them: a matrix product with few distinct numbers. No key is needed."""

    outs: tuple[int, ...]
    inputs: tuple[int, ...]
    plain: int


class Chebyshev(Instruction, frozen=True, tag="chebyshev"):
    """Σ coefficients[i]·T_i(a) at exactly `scale`, as `hal.polynomial` evaluates it with this `split`."""

    out: int
    a: int
    coefficients: tuple[float, ...]
    scale: str
    split: int


class SumSlots(Instruction, frozen=True, tag="sum_slots"):
    """Stage after stage, x becomes x + Σ rotations of x by that stage's steps."""

    out: int
    a: int
    stages: tuple[tuple[int, ...], ...]

    @property
    def rotations(self) -> tuple[int, ...]:
        """Of all stages, each once."""
        return tuple(sorted({step for stage in self.stages for step in stage}))


AnyInstruction = (
    LoadInput
    | LoadWeight
    | Add
    | Subtract
    | Negate
    | AddPlain
    | MultiplyPlain
    | AddConstant
    | MultiplyConstant
    | Multiply
    | Relinearise
    | Rescale
    | Drop
    | Rotate
    | RotateHoisted
    | Conjugate
    | Matrix
    | SumPlain
    | SumPeriodic
    | Chebyshev
    | SumSlots
)
