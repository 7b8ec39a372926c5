"""Matrix–vector products by diagonals (Halevi and Shoup), in baby and giant steps; the plan depends on no value.

out[i] = Σ_k d_k[i]·v[i + k]. Three layouts, all with exact zeros outside the matrix:
- `sparse`: v in the first slots, zeros behind; rows + columns − 1 diagonals at most; the result in the first slots.
- `periodic`: v repeated with a period P, the power of two ≥ rows, columns; P diagonals; the result repeats with P.
- `folded` (rows < columns): v repeated with a period C ≥ columns; only R ≥ rows diagonals, then log2(C/R) rotations
  fold the result, which repeats with R (the hybrid of Juvekar et al., GAZELLE, 2018).
Both last layouts want every slot filled by repetition, so that rotations wrap correctly.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.circuits.rotations import normalised
from lattice.fhe.circuits.sums import Stages, sum_stages
from lattice.fhe.hal.composites import ProductPlan

Diagonal = NDArray[np.complex128]

NTT, PRODUCT = 1.0, 0.25
"""Relative times of one limb's transform and of one limb's multiply-accumulate: what plans are compared by."""


class Layout(StrEnum):
    """How a vector lies in the slots."""

    SPARSE = "sparse"
    PERIODIC = "periodic"
    FOLDED = "folded"


class Goal(StrEnum):
    """What a plan keeps small first."""

    TIME = "time"
    KEYS = "keys"


class Limbs(NamedTuple):
    """The sizes of a key switch, from which times are estimated."""

    q: int = 8
    special: int = 2
    digits: int = 4


class MatrixPlan(NamedTuple):
    """Rotations of one product. `order[d]` is (diagonal, giant step) of stored diagonal d."""

    slots: int
    product: ProductPlan
    order: tuple[tuple[int, int], ...]
    fold: Stages = ()

    @property
    def rotations(self) -> tuple[int, ...]:
        """The keys that the product needs, at its level (the fold's at the same level, before rescaling)."""
        folds = [step for stage in self.fold for step in stage]
        return normalised([*self.product.babies, *self.product.giants, *folds], self.slots)


def plan_diagonals(
    indices: Mapping[int, object] | range,
    slots: int,
    *,
    goal: Goal = Goal.TIME,
    limbs: Limbs | None = None,
    fold: Stages = (),
) -> MatrixPlan:
    """The best split of these diagonals into babies and giants: fewest keys, or least time, ties to the other."""
    wanted = sorted(indices)
    if not wanted:
        raise LatticeError("circuit_invalid", "A matrix of zeros has no diagonal; its product is no secret.")
    sizes = limbs or Limbs()
    plans = [_split(wanted, slots, n1, fold) for n1 in _splits(wanted)]

    def rank(plan: MatrixPlan) -> tuple[float, float]:
        keys, time = float(len(plan.rotations)), cost(plan.product, sizes)
        return (keys, time) if goal is Goal.KEYS else (time, keys)

    return min(plans, key=rank)


def cost(plan: ProductPlan, limbs: Limbs) -> float:
    """Estimated time, in transforms of one limb."""
    wide = limbs.q + limbs.special
    mod_up = (limbs.digits * wide) * NTT
    mod_down = wide * NTT
    gadget = 2 * limbs.digits * wide * PRODUCT
    made = [(i, b) for i, b in plan.extended if plan.babies[b] != 0]
    giants = sum(1 for out in plan.terms for step, terms in zip(plan.giants, out, strict=True) if terms and step != 0)
    products = sum(len(terms) for out in plan.terms for terms in out) * 2 * wide * PRODUCT
    steps = giants * (mod_down + mod_up + gadget)
    decompositions = len({i for i, _ in made}) * mod_up
    return decompositions + len(made) * gadget + steps + products + len(plan.terms) * 2 * mod_down


def _splits(indices: list[int]) -> list[int]:
    span = indices[-1] - indices[0] + 1
    powers = [1 << bit for bit in range(span.bit_length() + 1)]
    return sorted({n1 for power in powers for n1 in (power, 3 * power) if n1 <= 2 * span})


def _split(indices: list[int], slots: int, n1: int, fold: Stages) -> MatrixPlan:
    groups: dict[int, list[int]] = {}
    for index in indices:
        groups.setdefault((index - index % n1) % slots, []).append(index)
    babies = sorted({index % n1 % slots for index in indices})
    position = {step: at for at, step in enumerate(babies)}
    order: list[tuple[int, int]] = []
    terms = []
    for giant, members in groups.items():
        first = len(order)
        order += [(index, giant) for index in members]
        terms.append(tuple((0, position[index % n1 % slots], first + at) for at, index in enumerate(members)))
    giants = tuple(groups)
    return MatrixPlan(slots, ProductPlan(tuple(babies), giants, (tuple(terms),)), tuple(order), fold)


def diagonals_of(matrix: ArrayLike, slots: int, layout: Layout) -> tuple[dict[int, Diagonal], Stages]:
    """The non-zero diagonals by index, and the folding that comes after."""
    m = _checked(matrix, slots)
    rows, columns = m.shape
    if layout is Layout.SPARSE:
        return _sparse(m, slots), ()
    if layout is Layout.PERIODIC:
        period = _power_of_two(max(rows, columns))
        return _cyclic(m, slots, period, period), ()
    short, period = _power_of_two(rows), _power_of_two(columns)
    if short >= period:
        return _cyclic(m, slots, short, short), ()
    return _cyclic(m, slots, short, period), sum_stages(period // short, stride=short)


def stored_diagonals(diagonals: Mapping[int, Diagonal], plan: MatrixPlan) -> Diagonal:
    """`[count, slots]` in the plan's order, each turned back by its giant step, ready to be encoded."""
    return np.stack([np.roll(diagonals[index], giant) for index, giant in plan.order])


def _checked(matrix: ArrayLike, slots: int) -> Diagonal:
    m = np.asarray(matrix)
    if m.ndim != 2 or 0 in m.shape or max(m.shape) > slots:
        raise LatticeError("circuit_invalid", f"A matrix of shape {m.shape} does not fit {slots} slots.")
    if not np.isfinite(m).all():
        raise LatticeError("values_unencodable", "An entry of the matrix is infinite or not a number.")
    return m.astype(np.complex128)


def _sparse(m: Diagonal, slots: int) -> dict[int, Diagonal]:
    rows, columns = m.shape
    found: dict[int, Diagonal] = {}
    for index in range(1 - rows, columns):
        values = np.diagonal(m, index)
        if values.any():
            start = max(0, -index)
            found[index] = np.zeros(slots, dtype=m.dtype)
            found[index][start : start + len(values)] = values
    if rows + columns - 1 > slots:
        return _wrapped(found, slots)
    return found


def _wrapped(found: dict[int, Diagonal], slots: int) -> dict[int, Diagonal]:
    """Indices modulo the slots: −1 and slots − 1 are one diagonal when the matrix fills the slots."""
    out: dict[int, Diagonal] = {}
    for index, values in found.items():
        at = index % slots
        out[at] = out[at] + values if at in out else values
    return out


def _cyclic(m: Diagonal, slots: int, short: int, period: int) -> dict[int, Diagonal]:
    """d_k[i] = M[i mod short, (i + k) mod period] for k < short, repeated over the slots."""
    padded = np.zeros((short, period), dtype=m.dtype)
    padded[: m.shape[0], : m.shape[1]] = m
    i = np.arange(slots)
    every = {k: padded[i % short, (i + k) % period] for k in range(short)}
    return {k: values for k, values in every.items() if values.any()}


def _power_of_two(x: int) -> int:
    return 1 << (x - 1).bit_length()
