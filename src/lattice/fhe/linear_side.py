"""Answering linear models without the interpreter: the whole request is two native calls on seeded ciphertexts.

A program is linear if it multiplies inputs by weights, adds products and adds plaintexts, and nothing else. Then every
output is Σ_i w_i ⊙ input_i + bias, and c1 of an input is expanded, used and forgotten a thousand residues at a time.
The bits are those of the interpreter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Ciphertext, Plaintext
from lattice.fhe.ckks.seeded import SeededCiphertext
from lattice.fhe.ckks.seeds import SEED_BYTES, Stream
from lattice.fhe.hal import instructions as ops
from lattice.fhe.hal.program import Program
from lattice.fhe.hal.rules import CiphertextType
from lattice.fhe.hal.weights import AnyPlaintext, PeriodicWeights
from lattice.fhe.native_module import HAS_NATIVE, native
from lattice.fhe.ring.modulus import Residues

MAX_BYTES = 256 << 20
"""Of weights written out for outputs that do not read every input."""
LEAST_RUN = 64


class _Sum(NamedTuple):
    """Σ weights[index] ⊙ inputs[i] over `terms` = {i: (weight, row, column)}, plus the plaintexts `biases`."""

    terms: dict[int, tuple[int, int, int]]
    biases: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class LinearPlan:
    """A linear program ready to run."""

    program: Program
    inputs: tuple[CiphertextType, ...]
    outputs: tuple[CiphertextType, ...]
    weights: Residues
    """`[outs, inputs, limbs, values]`"""
    bias: Residues | None
    """`[outs, limbs, N]`"""

    def run(self, ciphertexts: Sequence[SeededCiphertext]) -> list[Ciphertext]:
        """The program's outputs, not blinded."""
        params = self.program.params
        if len(ciphertexts) != len(self.inputs):
            raise LatticeError("circuit_invalid", f"The program takes {len(self.inputs)} inputs.")
        moduli = params.q_moduli(self.inputs[0].level)
        shape = (len(moduli), params.n)
        for x, wanted in zip(ciphertexts, self.inputs, strict=True):
            if x.params_id != params.id or x.c0.shape != shape or len(x.seed) != SEED_BYTES:
                raise LatticeError("parameters_mismatch", "A ciphertext has other parameters or another shape.")
            if (x.level, x.scale, x.encoding) != (wanted.level, wanted.scale, wanted.encoding):
                raise LatticeError("scale_mismatch", "A ciphertext has another level, scale or encoding.")
        halves = [np.ascontiguousarray(x.c0) for x in ciphertexts]
        seeds = [x.seed for x in ciphertexts]
        outs = native.sum_seeded(halves, seeds, Stream.CIPHERTEXT, self.weights, self.bias, moduli)
        return [
            Ciphertext(params.id, kind.level, kind.scale, components, kind.encoding)
            for kind, components in zip(self.outputs, outs, strict=True)
        ]


def plan_linear(program: Program, weights: Sequence[AnyPlaintext]) -> LinearPlan | None:
    """The plan, or None where the program is not of this kind or its weights would take too much room."""
    if not HAS_NATIVE or native.draw_kernel() == "portable" or len({i.kind for i in program.inputs}) != 1:
        return None
    sums = _sums(program, weights)
    if sums is None:
        return None
    values = max(_tensor(weights[w]).shape[-1] for s in sums for w, _, _ in s.terms.values())
    limbs = len(program.params.q_moduli(program.inputs[0].level))
    n = program.params.n
    if values != n and n // values < LEAST_RUN:
        values = n
    if 8 * len(sums) * len(program.inputs) * limbs * values > MAX_BYTES:
        return None
    full = np.zeros((len(sums), len(program.inputs), limbs, values), dtype=np.uint64)
    bias = np.zeros((len(sums), limbs, n), dtype=np.uint64)
    for out, total in enumerate(sums):
        for i, (weight, row, column) in total.terms.items():
            tensor = _tensor(weights[weight])[row, column]
            full[out, i] = np.repeat(tensor, values // tensor.shape[-1], axis=-1)
        for weight in total.biases:
            bias[out] = _sum(bias[out], _tensor(weights[weight])[0, 0], program, limbs)
    kinds = tuple(i.kind for i in program.inputs)
    return LinearPlan(program, kinds, tuple(program.checked.outputs), full, bias if bias.any() else None)


def _sum(x: Residues, y: Residues, program: Program, limbs: int) -> Residues:
    moduli = np.array(program.params.primes()[:limbs], dtype=np.uint64)[:, None]
    return (x + y) % moduli


def _tensor(weight: AnyPlaintext) -> NDArray[np.uint64]:
    """`[rows, columns, limbs, values]`"""
    return weight.residues if isinstance(weight, PeriodicWeights) else weight.poly[None, None]  # type: ignore[union-attr]


def _sums(program: Program, weights: Sequence[AnyPlaintext]) -> list[_Sum] | None:
    """Every output as a sum, by going through the program once; None at the first other instruction."""
    known: dict[int, _Sum] = {}
    plain: dict[int, int] = {}
    read: dict[int, int] = {}
    for step in program.instructions:
        if isinstance(step, ops.LoadInput):
            read[step.out] = step.input
        elif isinstance(step, ops.LoadWeight):
            plain[step.out] = step.weight
        elif (
            isinstance(step, ops.MultiplyPlain) and step.a in read and isinstance(weights[plain[step.plain]], Plaintext)
        ):
            known[step.out] = _Sum({read[step.a]: (plain[step.plain], 0, 0)})
        elif isinstance(step, ops.SumPeriodic) and all(x in read for x in step.inputs):
            number = plain[step.plain]
            inputs = [read[x] for x in step.inputs]
            if len(set(inputs)) < len(inputs):
                return None
            known |= {
                out: _Sum({i: (number, row, column) for column, i in enumerate(inputs)})
                for row, out in enumerate(step.outs)
            }
        elif isinstance(step, ops.Add) and step.a in known and step.b in known:
            a, b = known[step.a], known[step.b]
            if set(a.terms) & set(b.terms):
                return None
            known[step.out] = _Sum(a.terms | b.terms, a.biases + b.biases)
        elif isinstance(step, ops.AddPlain) and step.a in known:
            total = known[step.a]
            known[step.out] = total._replace(biases=(*total.biases, plain[step.plain]))
        else:
            return None
    return [known[register] for register in program.outputs] if known.keys() >= set(program.outputs) else None
