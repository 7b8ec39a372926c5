"""Writes a program instruction by instruction: registers are numbered, weights collected, each tied to its layer."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal.instructions import Instruction
from lattice.fhe.hal.program import Input, Program, Weight, scale_text

Values = NDArray[np.floating[Any]]


class Builder:
    """The program so far."""

    def __init__(self, params: ParameterSet) -> None:
        self.params = params
        self.inputs: list[Input] = []
        self.weights: list[Weight] = []
        self.values: list[Values] = []
        self.instructions: list[Instruction] = []
        self.layers: list[str] = []
        """Of each instruction."""
        self.layer = ""
        self._registers = 0

    def emit(self, kind: type[Instruction], **fields: Any) -> int:
        """Append an instruction of one result; the register that it defines."""
        return self._append(kind(out=self._registers, **fields), 1)[0]

    def emit_many(self, kind: type[Instruction], count: int, **fields: Any) -> list[int]:
        """Append one of several results."""
        outs = tuple(range(self._registers, self._registers + count))
        return self._append(kind(outs=outs, **fields), count)

    def _append(self, instruction: Instruction, count: int) -> list[int]:
        self.instructions.append(instruction)
        self.layers.append(self.layer)
        first, self._registers = self._registers, self._registers + count
        return list(range(first, self._registers))

    def input(self, level: int, scale: Fraction) -> int:
        """One more input."""
        self.inputs.append(Input(level, scale_text(scale)))
        return self.emit(ops.LoadInput, input=len(self.inputs) - 1)

    def weight(self, values: Values, level: int, scale: Fraction, **kind: Any) -> int:
        """One more weight; the register that holds it. `kind`: `count`, `extended`, `period`."""
        self.weights.append(Weight(level, scale_text(scale), **kind))
        self.values.append(values)
        return self.emit(ops.LoadWeight, weight=len(self.weights) - 1)

    def program(self, outputs: list[int]) -> Program:
        """The whole."""
        return Program(self.params, tuple(self.inputs), tuple(self.weights), tuple(self.instructions), tuple(outputs))
