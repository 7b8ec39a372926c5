"""What a circuit's rotations and products come to, layer by layer: for reports, and to compare plans."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lattice.fhe.compiler.circuit import Circuit, Combine, Matrix, Rotate, Step


@dataclass
class Counts:
    """Of one layer, or of all."""

    rotations: int = 0
    diagonals: int = 0
    """Plaintexts that something is multiplied by."""
    new_steps: int = 0
    """Distinct rotation steps that no layer before it needs: each is a key."""


def layer_counts(circuit: Circuit) -> dict[str, Counts]:
    """By layer, in order; layers that neither rotate nor multiply by plaintexts are left out."""
    found: dict[str, Counts] = {}
    known = {0}
    for step in circuit.steps:
        if isinstance(step, Matrix | Combine | Rotate):
            counts = found.setdefault(step.layer, Counts())
            steps = {turn % circuit.slots for turn in _turns(step)} - known
            counts.rotations += _rotations(step)
            counts.diagonals += _diagonals(step)
            counts.new_steps += len(steps)
            known |= steps
    return found


def total(circuit: Circuit) -> Counts:
    """Of the whole circuit."""
    every = layer_counts(circuit).values()
    sums = (sum(getattr(counts, name) for counts in every) for name in ("rotations", "diagonals", "new_steps"))
    return Counts(*sums)


def _turns(step: Matrix | Combine | Rotate) -> Iterable[int]:
    if isinstance(step, Rotate):
        return (step.steps,)
    folds = [turn for stage in step.fold for turn in stage]
    return [*folds, *step.babies, *step.giants] if isinstance(step, Matrix) else folds


def _rotations(step: Step) -> int:
    """Baby steps of every input, giant steps of every result, and the fold of every result."""
    if not isinstance(step, Matrix | Combine):
        return 1
    folds = len(step.outs) * sum(map(len, step.fold))
    if isinstance(step, Combine):
        return folds
    babies = {(i, step.babies[b]) for out in step.terms for group in out for i, b, _ in group if step.babies[b]}
    giants = [giant for out in step.terms for giant, group in zip(step.giants, out, strict=True) if giant and group]
    return len(babies) + len(giants) + folds


def _diagonals(step: Step) -> int:
    if isinstance(step, Matrix):
        return len(step.diagonals)
    return len(step.outs) * len(step.inputs) if isinstance(step, Combine) else 0
