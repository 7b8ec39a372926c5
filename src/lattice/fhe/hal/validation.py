"""Checks a program without running it: types, levels, scales, registers, sizes; and says which keys it needs.

An abstract run over types gives every register its exact level and scale. The first thing that does not fit is reported
as `program_invalid` with the number and name of the instruction.
"""

from __future__ import annotations

from dataclasses import dataclass

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.hal import rules
from lattice.fhe.hal.abstract_run import AbstractRun, Kind
from lattice.fhe.hal.program import MAX_COUNT, MAX_INSTRUCTIONS, MAX_INTERFACE, Input, Program, Weight
from lattice.fhe.hal.rules import CiphertextType

__all__ = ["Checked", "check", "required_keys"]


@dataclass(frozen=True)
class Checked:
    """What is known of a valid program before it runs."""

    types: dict[int, Kind]
    outputs: tuple[CiphertextType, ...]
    keys: tuple[KeySpec, ...]
    uses: frozenset[KeySpec]
    """Every (element, level) at which a key is used; `keys` keeps the highest level of each element."""
    last_use: dict[int, int]
    """Register → the last instruction that reads it (its definition if none does); outputs live to the end."""
    peak_ciphertexts: int
    """How many ciphertext registers are alive at once, at most."""

    def freed(self) -> dict[int, list[int]]:
        """Instruction → the registers that nobody reads afterwards: the liveness plan."""
        out: dict[int, list[int]] = {}
        for register, index in self.last_use.items():
            out.setdefault(index, []).append(register)
        return out


def required_keys(program: Program) -> tuple[KeySpec, ...]:
    """Exactly the keys that a client must make: one for each Galois element, cut to the highest level of its use."""
    return program.checked.keys


def check(program: Program) -> Checked:
    """Types of all registers, keys, liveness; `program_invalid` naming the instruction at the first fault."""
    _check_sizes(program)
    run = AbstractRun(program)
    for index, instruction in enumerate(program.instructions):
        try:
            run.step(instruction)
        except LatticeError as fault:
            name = type(instruction).__struct_config__.tag
            raise LatticeError(
                "program_invalid",
                f"Instruction {index} ({name}): {fault.message}",
                details={"instruction": index, "op": name, "cause": fault.code},
            ) from None
    outputs = _output_types(program, run)
    last_use = _last_uses(program)
    return Checked(run.types, outputs, _merged(run.uses), frozenset(run.uses), last_use, _peak(program, run, last_use))


def _check_sizes(program: Program) -> None:
    sizes = {
        "instructions": (len(program.instructions), MAX_INSTRUCTIONS),
        "inputs": (len(program.inputs), MAX_INTERFACE),
        "weights": (len(program.weights), MAX_INTERFACE),
        "outputs": (len(program.outputs), MAX_INTERFACE),
    }
    for name, (size, limit) in sizes.items():
        if size > limit:
            raise LatticeError("program_invalid", f"The program has {size} {name}; at most {limit} are allowed.")
    if not program.outputs:
        raise LatticeError("program_invalid", "The program has no output.")
    entries: list[Input | Weight] = [*program.inputs, *program.weights]
    for kind in [entry.kind for entry in entries]:
        if not 0 <= kind.level <= program.params.max_level:
            raise LatticeError("program_invalid", f"An input or weight is at level {kind.level}, which does not exist.")
        rules.checked(program.params, CiphertextType(kind.level, kind.scale))
    for weight in program.weights:
        if not 0 <= weight.count <= MAX_COUNT:
            raise LatticeError("program_invalid", f"A weight of {weight.count} plaintexts; at most {MAX_COUNT}.")
        try:
            rules.check_plaintexts(program.params, weight.kind)
        except LatticeError as fault:
            raise LatticeError("program_invalid", fault.message) from None


def _output_types(program: Program, run: AbstractRun) -> tuple[CiphertextType, ...]:
    outputs = []
    for register in program.outputs:
        kind = run.types.get(register)
        if not isinstance(kind, CiphertextType):
            raise LatticeError("program_invalid", f"Output register {register} is not a ciphertext.")
        outputs.append(kind)
    return tuple(outputs)


def _merged(uses: set[KeySpec]) -> tuple[KeySpec, ...]:
    highest: dict[int, int] = {}
    for use in uses:
        highest[use.element] = max(use.level, highest.get(use.element, 0))
    return tuple(KeySpec(element, highest[element]) for element in sorted(highest))


def _last_uses(program: Program) -> dict[int, int]:
    last: dict[int, int] = {}
    for index, instruction in enumerate(program.instructions):
        last |= dict.fromkeys((*instruction.reads, *instruction.defines), index)
    return last | dict.fromkeys(program.outputs, len(program.instructions))


def _peak(program: Program, run: AbstractRun, last_use: dict[int, int]) -> int:
    """Most ciphertexts alive at once: what a device must hold besides keys and weights."""
    change = [0] * (len(program.instructions) + 2)
    for index, instruction in enumerate(program.instructions):
        for register in instruction.defines:
            if isinstance(run.types[register], CiphertextType):
                change[index] += 1
                change[last_use[register] + 1] -= 1
    alive = peak = 0
    for delta in change:
        alive += delta
        peak = max(peak, alive)
    return peak
