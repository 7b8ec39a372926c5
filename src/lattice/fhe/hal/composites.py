"""The composites' defaults, over the primitives: what a fused kernel must reproduce bit for bit.

Every array is numpy uint64, fully reduced, in NTT form, `[…, limbs, N]`. `Q` means the limbs of `ctx.q_moduli`, `QP`
those followed by the limbs of `ctx.special`. A key is `[digits, 2, limbs, N]` of the level of `ctx` or a higher one.
Sums modulo a prime are exact, so the order of additions is free; what is *not* free is where a ModDown or a base
conversion happens, because each rounds. This module fixes that:

| composite | ModUp (of c1, once per) | ModDown (of) |
|---|---|---|
| key switch | call | both halves of the gadget product |
| rotation, hoisted or not | input: σ permutes the NTT-form digits afterwards | both halves, for each rotation |
| sum of rotations | input | both halves of the whole sum, once |
| relinearisation | input, of c2 | both halves of the gadget product |
| double-hoisted BSGS | input; then each giant step but the identity | c1 of each such giant step; the whole sum |

Double hoisting is algorithm 6 of Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux (eprint 2020/1203).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import NamedTuple, TypeVar

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.hal.backend import Backend, KeySwitchContext, Residues
from lattice.fhe.hal.galois import IDENTITY

T = TypeVar("T")


class BsgsPlan(NamedTuple):
    """Which products of a matrix–vector multiplication belong together.

    The result is Σ_j σ_{giants[j]}( Σ_{(b, d) in terms[j]} diagonals[d] ⊙ σ_{babies[b]}(ct) ). Elements are Galois
    elements g (5^r mod 2N turns left by r slots), each list without repeats; `IDENTITY` may stand in either. Whoever
    makes the diagonals has turned those of giant step j back by j's rotation already.
    """

    babies: tuple[int, ...]
    giants: tuple[int, ...]
    terms: tuple[tuple[tuple[int, int], ...], ...]

    @property
    def elements(self) -> frozenset[int]:
        """The Galois elements that need a key."""
        return frozenset(self.babies + self.giants) - {IDENTITY}


def check_plan(plan: BsgsPlan, diagonals: int) -> None:
    """Indices are in range, steps are distinct, every giant step has a term: `circuit_invalid` otherwise."""
    fine = (
        plan.giants
        and len(plan.giants) == len(plan.terms)
        and len(set(plan.giants)) == len(plan.giants)
        and len(set(plan.babies)) == len(plan.babies)
        and all(plan.terms)
        and all(0 <= b < len(plan.babies) and 0 <= d < diagonals for terms in plan.terms for b, d in terms)
    )
    if not fine:
        raise LatticeError("circuit_invalid", f"The plan of the matrix product does not fit its {diagonals} diagonals.")


def key_switch(backend: Backend, c: Residues, key: Residues, ctx: KeySwitchContext) -> Residues:
    """`[2, Q, N]` that decrypts under s to what c `[Q, N]` times the key's s' is worth."""
    return _mod_down(backend, backend.gadget_product(backend.decompose(c, ctx), key, ctx), ctx)


def rotate(backend: Backend, ct: Residues, element: int, key: Residues, ctx: KeySwitchContext) -> Residues:
    """σ(ct) under s: a hoisted rotation of length one."""
    return rotate_hoisted(backend, ct, [element], [key], ctx)[0]


def rotate_hoisted(
    backend: Backend, ct: Residues, elements: Sequence[int], keys: Sequence[Residues], ctx: KeySwitchContext
) -> list[Residues]:
    """Several rotations of one ciphertext `[2, Q, N]`, which share its decomposition."""
    digits = backend.decompose(ct[1], ctx)
    return [_finish_rotation(backend, ct, digits, g, key, ctx) for g, key in zip(elements, keys, strict=True)]


def _finish_rotation(
    backend: Backend, ct: Residues, digits: Residues, element: int, key: Residues, ctx: KeySwitchContext
) -> Residues:
    switched = backend.gadget_product(backend.automorphism_ntt(digits, element), key, ctx)
    out = _mod_down(backend, switched, ctx)
    out[0] = backend.add(out[0], backend.automorphism_ntt(ct[0], element), ctx.q_moduli)
    return out


def rotate_sum(
    backend: Backend, ct: Residues, elements: Sequence[int], keys: Sequence[Residues], ctx: KeySwitchContext
) -> Residues:
    """Σ σ_g(ct) over non-identity elements, and ct itself: one decomposition and one ModDown for all of them."""
    digits = backend.decompose(ct[1], ctx)
    total = _extend(backend, ct, ctx)
    for element, key in zip(elements, keys, strict=True):
        total = backend.add(total, _extended_rotation(backend, ct, digits, element, key, ctx), ctx.moduli)
    return _mod_down(backend, total, ctx)


def multiply(backend: Backend, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
    """The tensor product of two `[2, limbs, N]`: `[3, limbs, N]`, to be relinearised."""
    cross = backend.mul_add(backend.mul(x[0], y[1], moduli), x[1], y[0], moduli)
    return np.stack([backend.mul(x[0], y[0], moduli), cross, backend.mul(x[1], y[1], moduli)])


def relinearise(backend: Backend, ct: Residues, key: Residues, ctx: KeySwitchContext) -> Residues:
    """`[3, Q, N]` to `[2, Q, N]` with the key of s²."""
    return backend.add(ct[:2], key_switch(backend, ct[2], key, ctx), ctx.q_moduli)


def bsgs(
    backend: Backend,
    ct: Residues,
    diagonals: Residues,
    keys: Mapping[int, Residues],
    plan: BsgsPlan,
    ctx: KeySwitchContext,
) -> Residues:
    """A matrix–vector product by double-hoisted baby and giant steps; diagonals are `[count, QP, N]`.

    Baby steps stay extended: σ(P·c0) plus the gadget product, over QP, without a ModDown. A giant step's c0 stays
    extended too; only its c1 comes down to Q, because the next decomposition needs it there. The sum of all giant
    steps comes down once.
    """
    babies = _extended_babies(backend, ct, keys, plan, ctx)
    total: Residues | None = None
    for element, terms in zip(plan.giants, plan.terms, strict=True):
        inner = _inner_sum(backend, babies, diagonals, terms, ctx)
        if element != IDENTITY:
            inner = _giant_step(backend, inner, element, keys[element], ctx)
        total = inner if total is None else backend.add(total, inner, ctx.moduli)
    assert total is not None, "a plan has at least one giant step"
    return _mod_down(backend, total, ctx)


def _extended_babies(
    backend: Backend, ct: Residues, keys: Mapping[int, Residues], plan: BsgsPlan, ctx: KeySwitchContext
) -> list[Residues]:
    digits = backend.decompose(ct[1], ctx) if set(plan.babies) - {IDENTITY} else None
    out = []
    for element in plan.babies:
        if element == IDENTITY or digits is None:
            out.append(_extend(backend, ct, ctx))
        else:
            out.append(_extended_rotation(backend, ct, digits, element, keys[element], ctx))
    return out


def _extended_rotation(
    backend: Backend, ct: Residues, digits: Residues, element: int, key: Residues, ctx: KeySwitchContext
) -> Residues:
    """P·σ(ct) under s over QP, `[2, QP, N]`."""
    out = backend.gadget_product(backend.automorphism_ntt(digits, element), key, ctx)
    limbs = len(ctx.q_moduli)
    lifted = _times_p(backend, backend.automorphism_ntt(ct[0], element), ctx)
    out[0, :limbs] = backend.add(out[0, :limbs], lifted, ctx.q_moduli)
    return out


def _extend(backend: Backend, ct: Residues, ctx: KeySwitchContext) -> Residues:
    """P·ct over QP: the limbs of P are zero."""
    out = np.zeros((2, len(ctx.moduli), ctx.n), dtype=np.uint64)
    out[:, : len(ctx.q_moduli)] = _times_p(backend, ct, ctx)
    return out


def _times_p(backend: Backend, x: Residues, ctx: KeySwitchContext) -> Residues:
    p = prod(ctx.special)
    return backend.mul_scalar(x, [p % q for q in ctx.q_moduli], ctx.q_moduli)


def _inner_sum(
    backend: Backend,
    babies: Sequence[Residues],
    diagonals: Residues,
    terms: Sequence[tuple[int, int]],
    ctx: KeySwitchContext,
) -> Residues:
    total = np.zeros((2, len(ctx.moduli), ctx.n), dtype=np.uint64)
    for baby, diagonal in terms:
        total = backend.mul_add(total, babies[baby], diagonals[diagonal], ctx.moduli)
    return total


def _giant_step(backend: Backend, inner: Residues, element: int, key: Residues, ctx: KeySwitchContext) -> Residues:
    digits = backend.decompose(backend.mod_down(inner[1], ctx.q_moduli, ctx.special), ctx)
    out = backend.gadget_product(backend.automorphism_ntt(digits, element), key, ctx)
    out[0] = backend.add(out[0], backend.automorphism_ntt(inner[0], element), ctx.moduli)
    return out


def _mod_down(backend: Backend, x: Residues, ctx: KeySwitchContext) -> Residues:
    return backend.mod_down(x, ctx.q_moduli, ctx.special)


class Composites:
    """A backend's composites: its own where it has a method of the name, the default elsewhere; bits are the same."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def _find(self, default: Callable[..., T]) -> Callable[..., T]:
        return getattr(self.backend, default.__name__, None) or partial(default, self.backend)

    def key_switch(self, c: Residues, key: Residues, ctx: KeySwitchContext) -> Residues:
        """See the function of this name."""
        return self._find(key_switch)(c, key, ctx)

    def rotate(self, ct: Residues, element: int, key: Residues, ctx: KeySwitchContext) -> Residues:
        """See the function of this name."""
        return self._find(rotate)(ct, element, key, ctx)

    def rotate_hoisted(
        self, ct: Residues, elements: Sequence[int], keys: Sequence[Residues], ctx: KeySwitchContext
    ) -> list[Residues]:
        """See the function of this name."""
        return list(self._find(rotate_hoisted)(ct, elements, keys, ctx))

    def rotate_sum(
        self, ct: Residues, elements: Sequence[int], keys: Sequence[Residues], ctx: KeySwitchContext
    ) -> Residues:
        """See the function of this name."""
        return self._find(rotate_sum)(ct, elements, keys, ctx)

    def multiply(self, x: Residues, y: Residues, moduli: Sequence[int]) -> Residues:
        """See the function of this name."""
        return self._find(multiply)(x, y, moduli)

    def relinearise(self, ct: Residues, key: Residues, ctx: KeySwitchContext) -> Residues:
        """See the function of this name."""
        return self._find(relinearise)(ct, key, ctx)

    def bsgs(
        self, ct: Residues, diagonals: Residues, keys: Mapping[int, Residues], plan: BsgsPlan, ctx: KeySwitchContext
    ) -> Residues:
        """See the function of this name."""
        return self._find(bsgs)(ct, diagonals, keys, plan, ctx)
