"""A circuit: what happens to slots, with no levels, scales or parameters yet. Packing makes it, `levels` lowers it.

Values are numbered from 0, each defined once; a value stands for one ciphertext, `[slots]` real numbers. Weights are
real numbers in slots. Rotations are to the left, modulo `slots`: (rotate by r)[s] = v[(s + r) mod slots].
`simulate` runs a circuit in float64 and is the specification of every step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.float64]
Slots = NDArray[np.int32]
"""For each slot the index of what lies there, flattened; `ZERO` or `JUNK` where it is nothing of the tensor."""
ZERO, JUNK = -1, -2
Stages = tuple[tuple[int, ...], ...]
"""Stage after stage, x becomes x + Σ rotations of x by that stage's steps."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step; `layer` names the graph node that it came from, for the report."""

    layer: str = field(kw_only=True, default="")


@dataclass(frozen=True, eq=False)
class Matrix(Step):
    """outs[a] = fold( Σ_j rot_{giants[j]}( Σ_{(i, b, d) ∈ terms[a][j]} diagonals[d] ⊙ rot_{babies[b]}(inputs[i]) ) )
    + bias[a]: double-hoisted, one level. Diagonals of giant step j are stored turned back by it already."""

    outs: tuple[int, ...]
    inputs: tuple[int, ...]
    diagonals: Real
    """`[count, slots]`"""
    babies: tuple[int, ...]
    giants: tuple[int, ...]
    terms: tuple[tuple[tuple[tuple[int, int, int], ...], ...], ...]
    fold: Stages = ()
    bias: Real | None = None
    """`[outs, slots]`, or None for none."""


@dataclass(frozen=True, eq=False)
class Combine(Step):
    """outs[a] = fold( Σ_i weights[a, i, s mod period] · inputs[i] ) + bias[a]: no rotation but the fold's; one level.

    Periodic weights are cheap: a plaintext with period f in its slots has 2·f distinct values in NTT form, so with
    small f this is a matrix product with numbers.
    """

    outs: tuple[int, ...]
    inputs: tuple[int, ...]
    weights: Real
    """`[outs, inputs, period]`, period a power of two."""
    fold: Stages = ()
    bias: Real | None = None
    """`[outs, period]`, or None for none."""


@dataclass(frozen=True, eq=False)
class Rotate(Step):
    """out = a turned left; no level."""

    out: int
    a: int
    steps: int


@dataclass(frozen=True, eq=False)
class Add(Step):
    """out = a + b; no level, but both come to one level and scale."""

    out: int
    a: int
    b: int


@dataclass(frozen=True, eq=False)
class Subtract(Step):
    """out = a − b."""

    out: int
    a: int
    b: int


@dataclass(frozen=True, eq=False)
class Multiply(Step):
    """out = a ⊙ b: one level."""

    out: int
    a: int
    b: int


@dataclass(frozen=True, eq=False)
class Square(Step):
    """out = a ⊙ a: one level."""

    out: int
    a: int


@dataclass(frozen=True, eq=False)
class Polynomial(Step):
    """out = Σ_k coefficients[k]·T_k(t), t = (2a − lo − hi)/(hi − lo), in every slot. The factor that maps the interval
    to [−1, 1] is folded into the layer before where that is linear, so a circuit has lo, hi = −1, 1 mostly."""

    out: int
    a: int
    coefficients: tuple[float, ...]
    interval: tuple[float, float] = (-1.0, 1.0)


@dataclass(frozen=True, eq=False)
class Circuit:
    """The whole. `inputs[k]` says for each slot of input k which entry of the flattened `[batch, features]` the client
    puts there (`ZERO`: nothing); `places[k]` which entry of the flattened `[batch, results]` lies in each slot of
    `outputs[k]` (an entry may lie in several slots; `JUNK` slots are blinded before they leave)."""

    slots: int
    batch: int
    inputs: tuple[Slots, ...]
    """Values 0 … len(inputs) − 1."""
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    places: tuple[Slots, ...]
