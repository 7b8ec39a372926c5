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
| matrix | every input; then each giant step but the identity | c1 of each such giant step; each result |
| sums of products with plaintexts | – | – |

`matrix` is a double-hoisted baby-step giant-step product: algorithm 6 of Bossuat, Mouchet, Troncoso-Pastoriza and
Hubaux (eprint 2020/1203).
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


class ProductPlan(NamedTuple):
    """Which products of matrix–vector multiplications belong together.

    Result a is Σ_j σ_{giants[j]}( Σ_{(i, b, d) in terms[a][j]} diagonals[d] ⊙ σ_{babies[b]}(inputs[i]) ). Elements are
    Galois elements g (5^r mod 2N turns left by r slots), each list without repeats; `IDENTITY` may stand in either.
    Whoever makes the diagonals has turned those of giant step j back by j's rotation already.
    """

    babies: tuple[int, ...]
    giants: tuple[int, ...]
    terms: tuple[tuple[tuple[tuple[int, int, int], ...], ...], ...]

    @property
    def elements(self) -> frozenset[int]:
        """The Galois elements that need a key."""
        return frozenset(self.babies + self.giants) - {IDENTITY}

    @property
    def extended(self) -> tuple[tuple[int, int], ...]:
        """The (input, baby) pairs that occur."""
        return tuple(sorted({(i, b) for out in self.terms for terms in out for i, b, _ in terms}))


Terms = Sequence[Sequence[tuple[int, int]]]
"""For each result the (input, plaintext) pairs whose products are added up."""


def check_plan(plan: ProductPlan, inputs: int, diagonals: int) -> None:
    """Indices are in range, steps are distinct, every result and every giant step has a term: `circuit_invalid`
    otherwise. A result need not use every giant step."""
    babies, giants = len(plan.babies), len(plan.giants)
    fine = (
        plan.terms
        and all(len(out) == giants and any(out) for out in plan.terms)
        and all(any(out[j] for out in plan.terms) for j in range(giants))
        and len(set(plan.giants)) == giants
        and len(set(plan.babies)) == babies
        and all(
            0 <= i < inputs and 0 <= b < babies and 0 <= d < diagonals
            for out in plan.terms
            for terms in out
            for i, b, d in terms
        )
    )
    if not fine:
        raise LatticeError("circuit_invalid", f"The plan of the matrix product does not fit its {diagonals} diagonals.")


def check_terms(terms: Terms, inputs: int, plaintexts: int) -> None:
    """Indices are in range and every result has a term: `circuit_invalid` otherwise."""
    if not all(terms) or not all(0 <= i < inputs and 0 <= d < plaintexts for out in terms for i, d in out):
        message = f"The terms of the sums do not fit {inputs} ciphertexts and {plaintexts} plaintexts."
        raise LatticeError("circuit_invalid", message)


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


def matrix(
    backend: Backend,
    cts: Sequence[Residues],
    diagonals: Residues,
    keys: Mapping[int, Residues],
    plan: ProductPlan,
    ctx: KeySwitchContext,
) -> list[Residues]:
    """Matrix–vector products by double-hoisted baby and giant steps; diagonals are `[count, QP, N]`.

    Baby steps stay extended: σ(P·c0) plus the gadget product, over QP, without a ModDown. A giant step's c0 stays
    extended too; only its c1 comes down to Q, because the next decomposition needs it there. The sum of all giant
    steps comes down once for each result.
    """
    babies = _extended_babies(backend, cts, keys, plan, ctx)
    outs = []
    for by_giant in plan.terms:
        total: Residues | None = None
        for element, terms in zip(plan.giants, by_giant, strict=True):
            if terms:
                inner = _inner_sum(backend, babies, diagonals, terms, ctx)
                if element != IDENTITY:
                    inner = _giant_step(backend, inner, element, keys[element], ctx)
                total = inner if total is None else backend.add(total, inner, ctx.moduli)
        assert total is not None, "every result has a term"
        outs.append(_mod_down(backend, total, ctx))
    return outs


def _extended_babies(
    backend: Backend, cts: Sequence[Residues], keys: Mapping[int, Residues], plan: ProductPlan, ctx: KeySwitchContext
) -> dict[tuple[int, int], Residues]:
    """By input and baby step."""
    digits: dict[int, Residues] = {}
    out = {}
    for i, b in plan.extended:
        element = plan.babies[b]
        if element == IDENTITY:
            out[i, b] = _extend(backend, cts[i], ctx)
        else:
            if i not in digits:
                digits[i] = backend.decompose(cts[i][1], ctx)
            out[i, b] = _extended_rotation(backend, cts[i], digits[i], element, keys[element], ctx)
    return out


def sum_plain(
    backend: Backend, cts: Sequence[Residues], plain: Residues, terms: Terms, moduli: Sequence[int]
) -> list[Residues]:
    """For each result Σ plain[d] ⊙ cts[i] over its (i, d); plaintexts are `[count, limbs, N]`."""
    outs = []
    for pairs in terms:
        total = np.zeros_like(cts[0])
        for i, d in pairs:
            total = backend.mul_add(total, cts[i], plain[d], moduli)
        outs.append(total)
    return outs


def sum_periodic(backend: Backend, cts: Sequence[Residues], weights: Residues, moduli: Sequence[int]) -> list[Residues]:
    """For each result a, Σ_i w[a, i] ⊙ cts[i], with w `[outs, inputs, limbs, values]` in NTT form.

    A plaintext that repeats in the slots with period f is a polynomial in X^(N/2f): in bit-reversed order its
    evaluations are constant on 2f runs of N/(2f) (for f = 1 on everything, if it is real).
    """
    repeat = cts[0].shape[-1] // weights.shape[-1]
    outs = []
    for row in weights:
        total = np.zeros_like(cts[0])
        for x, w in zip(cts, row, strict=True):
            total = backend.mul_add(total, x, np.repeat(w, repeat, axis=-1), moduli)
        outs.append(total)
    return outs


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
    babies: Mapping[tuple[int, int], Residues],
    diagonals: Residues,
    terms: Sequence[tuple[int, int, int]],
    ctx: KeySwitchContext,
) -> Residues:
    total = np.zeros((2, len(ctx.moduli), ctx.n), dtype=np.uint64)
    for i, baby, diagonal in terms:
        total = backend.mul_add(total, babies[i, baby], diagonals[diagonal], ctx.moduli)
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

    def matrix(
        self,
        cts: Sequence[Residues],
        diagonals: Residues,
        keys: Mapping[int, Residues],
        plan: ProductPlan,
        ctx: KeySwitchContext,
    ) -> list[Residues]:
        """See the function of this name."""
        return list(self._find(matrix)(cts, diagonals, keys, plan, ctx))

    def sum_plain(
        self, cts: Sequence[Residues], plain: Residues, terms: Terms, moduli: Sequence[int]
    ) -> list[Residues]:
        """See the function of this name."""
        return list(self._find(sum_plain)(cts, plain, terms, moduli))

    def sum_periodic(self, cts: Sequence[Residues], weights: Residues, moduli: Sequence[int]) -> list[Residues]:
        """See the function of this name."""
        return list(self._find(sum_periodic)(cts, weights, moduli))
