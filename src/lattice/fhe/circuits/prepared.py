"""Weights made ready for an evaluator: encoded once, used for every ciphertext. Nothing here is secret to its owner."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np
from numpy.typing import ArrayLike

from lattice.core.errors import LatticeError
from lattice.fhe.circuits.matrix import Goal, Layout, Limbs, MatrixPlan, diagonals_of, plan_diagonals, stored_diagonals
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.evaluation_keys import KeySpec
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.hal.weights import Diagonals


@dataclass(frozen=True, eq=False)
class PreparedMatrix:
    """A matrix at one level: its plan, and its diagonals encoded over the special primes too."""

    plan: MatrixPlan
    diagonals: Diagonals
    shape: tuple[int, ...]
    layout: Layout

    def keys(self, params: ParameterSet) -> tuple[KeySpec, ...]:
        """The evaluation keys that its product needs."""
        return tuple(KeySpec.rotation(step, self.diagonals.level, params) for step in self.plan.rotations)


def prepare_matrix(
    params: ParameterSet,
    matrix: ArrayLike,
    *,
    level: int,
    layout: Layout = Layout.SPARSE,
    goal: Goal = Goal.TIME,
    scale: Fraction | None = None,
    encoder: Encoder | None = None,
) -> PreparedMatrix:
    """Plan and encode. Without a scale, that of the primes which rescaling drops: a ciphertext then keeps its own."""
    if level < 1 and scale is None:
        raise LatticeError("level_exhausted", "A matrix at level 0 cannot be rescaled; say which scale it is to have.")
    exact = scale or Fraction(prod(params.dropped(level)))
    diagonals, fold = diagonals_of(matrix, params.slots, layout)
    digits = params.digit_plan(level)
    limbs = Limbs(len(digits.q_moduli), len(digits.special), len(digits.digits))
    plan = plan_diagonals(diagonals, params.slots, goal=goal, limbs=limbs, fold=fold)
    stored = stored_diagonals(diagonals, plan)
    polys = (encoder or Encoder(params)).encode_over(stored, exact, digits.moduli)
    return PreparedMatrix(plan, Diagonals(params.id, level, exact, polys), np.shape(matrix), layout)
