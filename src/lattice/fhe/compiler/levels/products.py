"""A matrix product with weights over Q alone: babies hoisted, then sums with plaintexts, then giant steps one by one.

`ops.Matrix` keeps babies over QP and divides by P once for each result; its weights have residues modulo P too. They
are read from memory once and used once, so a product of very many diagonals waits for them: there it is quicker to
divide each baby by P before, and to read weights over Q, which are about half as long.
"""

from __future__ import annotations

from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.compiler import circuit as steps
from lattice.fhe.compiler.levels.builder import Builder
from lattice.fhe.compiler.levels.cost import CACHED, Switch
from lattice.fhe.hal import instructions as ops

READ = 0.8
"""Time of one limb of one diagonal, from memory, in transforms of a limb: measured with 200 MB and more."""


def is_quicker_over_q(step: steps.Matrix, params: ParameterSet, level: int) -> bool:
    """Whether what is not read outweighs the divisions by P that come on top."""
    terms = sum(len(group) for out in step.terms for group in out)
    if terms <= CACHED:
        return False
    switch = Switch.at(params, level)
    babies = {(i, b) for out in step.terms for group in out for i, b, _ in group if step.babies[b]}
    turns = sum(1 for out in step.terms for giant, group in zip(step.giants, out, strict=True) if giant and group)
    more = 2 * len(babies) + turns - 2 * len(step.outs)
    return READ * terms * switch.special > more * switch.wide


def over_q(to: Builder, step: steps.Matrix, operands: list[int], plain: int, slots: int) -> list[int]:
    """The results, not rescaled."""
    turned = _babies(to, step, operands, slots)
    places = {key: at for at, key in enumerate(turned)}
    sums = [(a, j) for a, out in enumerate(step.terms) for j, group in enumerate(out) if group]
    terms = tuple(tuple((places[i, b], d) for i, b, d in step.terms[a][j]) for a, j in sums)
    made = to.emit_many(ops.SumPlain, len(sums), inputs=tuple(turned.values()), plain=plain, terms=terms)
    results: dict[int, int] = {}
    for (a, j), register in zip(sums, made, strict=True):
        giant = step.giants[j] % slots
        part = to.emit(ops.Rotate, a=register, steps=giant) if giant else register
        results[a] = to.emit(ops.Add, a=results[a], b=part) if a in results else part
    return [results[a] for a in range(len(step.outs))]


def _babies(to: Builder, step: steps.Matrix, operands: list[int], slots: int) -> dict[tuple[int, int], int]:
    """(input, baby) → its register."""
    used = sorted({(i, b) for out in step.terms for group in out for i, b, _ in group})
    registers = {(i, b): operands[i] for i, b in used if step.babies[b] % slots == 0}
    for i, operand in enumerate(operands):
        babies = [b for at, b in used if at == i and step.babies[b] % slots]
        turns = tuple(step.babies[b] % slots for b in babies)
        if len(babies) == 1:
            registers[i, babies[0]] = to.emit(ops.Rotate, a=operand, steps=turns[0])
        elif babies:
            outs = to.emit_many(ops.RotateHoisted, len(babies), a=operand, steps=turns)
            registers |= {(i, b): out for b, out in zip(babies, outs, strict=True)}
    return {key: registers[key] for key in used}


__all__ = ["is_quicker_over_q", "over_q"]
