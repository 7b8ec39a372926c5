"""Operations on typed ciphertexts over any backend: the rules are checked first, then residues are computed.

The evaluator of `circuits` and the interpreter of programs both stand on this class. It holds evaluation keys, which
are public, and never a secret.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Protocol

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Ciphertext, Plaintext, check_same_parameters, check_shape
from lattice.fhe.ckks.evaluation_keys import RELINEARISATION
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.hal import rules
from lattice.fhe.hal.backend import Backend, KeySwitchContext, Residues
from lattice.fhe.hal.composites import Composites, ProductPlan, Terms, check_plan, check_terms
from lattice.fhe.hal.galois import IDENTITY, describe
from lattice.fhe.hal.rules import CiphertextType, PlaintextType
from lattice.fhe.hal.weights import AnyPlaintext, Diagonals, PeriodicWeights, plaintext_type
from lattice.fhe.ring.automorphism import conjugation_element, rotation_element


class KeySource(Protocol):
    """Where evaluation keys come from."""

    @property
    def params_id(self) -> str:
        """Whose keys these are."""
        ...

    def tensor(self, element: int, level: int) -> Residues | None:
        """`[digits, 2, limbs, N]` of a key made for `level` or the nearest higher one; 0 stands for s²."""
        ...


class Operations:
    """Typed arithmetic on ciphertexts. Every method returns a new ciphertext and leaves its arguments alone."""

    def __init__(self, params: ParameterSet, keys: KeySource | None, backend: Backend) -> None:
        if keys is not None and keys.params_id != params.id:
            raise LatticeError(
                "parameters_mismatch", f"The keys have parameters {keys.params_id}, the evaluator {params.id}."
            )
        self.params = params
        self.keys = keys
        self.backend = backend
        self.composites = Composites(backend)
        self._shapes = {level: (len(params.q_moduli(level)), params.n) for level in range(params.max_level + 1)}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.params.id}, backend={self.backend.name})"

    # --- types --------------------------------------------------------------------------------------------

    def type_of(self, x: Ciphertext) -> CiphertextType:
        """The type of a ciphertext that belongs here."""
        shape = x.components.shape
        if x.params_id != self.params.id or shape[1:] != self._shapes.get(x.level) or not 2 <= shape[0] <= 3:
            check_shape(x, self.params)
        return CiphertextType(x.level, x.scale, len(x.components), x.encoding)

    def check_plain(self, value: AnyPlaintext) -> PlaintextType:
        """The type of plaintexts that belong here and whose tensor has the form that their level says."""
        if isinstance(value, Plaintext):
            check_shape(value, self.params)
        else:
            value.check(self.params)
        return plaintext_type(value)

    def _types(self, inputs: Sequence[Ciphertext]) -> list[CiphertextType]:
        return [self.type_of(x) for x in inputs]

    def _made(self, kind: CiphertextType, components: Residues) -> Ciphertext:
        return Ciphertext(self.params.id, kind.level, kind.scale, components, kind.encoding)

    def _moduli(self, kind: CiphertextType) -> tuple[int, ...]:
        return self.params.q_moduli(kind.level)

    # --- linear -------------------------------------------------------------------------------------------

    def add(self, x: Ciphertext, y: Ciphertext) -> Ciphertext:
        """x + y, of equal level and scale."""
        return self._sum(x, y, negative=False)

    def subtract(self, x: Ciphertext, y: Ciphertext) -> Ciphertext:
        """x − y, of equal level and scale."""
        return self._sum(x, y, negative=True)

    def _sum(self, x: Ciphertext, y: Ciphertext, *, negative: bool) -> Ciphertext:
        check_same_parameters(x, y)
        kind = rules.add(self.type_of(x), self.type_of(y))
        moduli = self._moduli(kind)
        shared = min(len(x.components), len(y.components))
        operation = self.backend.sub if negative else self.backend.add
        head = operation(x.components[:shared], y.components[:shared], moduli)
        if kind.components == shared:
            return self._made(kind, head)
        tail = x.components[shared:] if len(x.components) > shared else y.components[shared:]
        if negative and len(y.components) > shared:
            tail = self.backend.neg(tail, moduli)
        return self._made(kind, np.concatenate([head, tail]))

    def negate(self, x: Ciphertext) -> Ciphertext:
        """−x."""
        kind = self.type_of(x)
        return self._made(kind, self.backend.neg(x.components, self._moduli(kind)))

    def add_plain(self, x: Ciphertext, plain: Plaintext) -> Ciphertext:
        """x + plain, of equal level and scale."""
        kind = rules.add_plain(self.type_of(x), self.check_plain(plain))
        out = x.components.copy()
        out[0] = self.backend.add(x.components[0], plain.poly, self._moduli(kind))
        return self._made(kind, out)

    def multiply_plain(self, x: Ciphertext, plain: Plaintext) -> Ciphertext:
        """x ⊙ plain; scales multiply, nothing is rescaled."""
        kind = rules.multiply_plain(self.params, self.type_of(x), self.check_plain(plain))
        return self._made(kind, self.backend.mul(x.components, plain.poly, self._moduli(kind)))

    def add_constant(self, x: Ciphertext, value: float) -> Ciphertext:
        """x + value in every slot; the value is rounded at x's scale."""
        kind = rules.add_constant(self.type_of(x))
        moduli, rounded = self._moduli(kind), rounded_at(value, x.scale)
        out = x.components.copy()
        for limb, q in zip(out[0], moduli, strict=True):
            limb += np.uint64(rounded % q)
            np.minimum(limb, limb - np.uint64(q), out=limb)  # below q the difference wraps around to the top
        return self._made(kind, out)

    def multiply_constant(self, x: Ciphertext, value: float, scale: Fraction) -> Ciphertext:
        """x·value; the value is rounded at `scale`, which multiplies x's."""
        kind = rules.multiply_constant(self.params, self.type_of(x), scale)
        moduli, rounded = self._moduli(kind), rounded_at(value, scale)
        scaled = self.backend.mul_scalar(x.components, [rounded % q for q in moduli], moduli)
        return self._made(kind, scaled)

    # --- products and levels ------------------------------------------------------------------------------

    def multiply(self, x: Ciphertext, y: Ciphertext) -> Ciphertext:
        """x ⊙ y with three components, neither relinearised nor rescaled."""
        check_same_parameters(x, y)
        kind = rules.multiply(self.params, self.type_of(x), self.type_of(y))
        return self._made(kind, self.composites.multiply(x.components, y.components, self._moduli(kind)))

    def relinearise(self, x: Ciphertext) -> Ciphertext:
        """Three components to two."""
        kind = rules.relinearise(self.type_of(x))
        key = self.key(RELINEARISATION, kind.level)
        return self._made(kind, self.composites.relinearise(x.components, key, self._context(kind.level)))

    def rescale(self, x: Ciphertext) -> Ciphertext:
        """One level down; the scale is divided by the dropped group exactly."""
        kind = rules.rescale(self.params, self.type_of(x))
        kept, dropped = self._moduli(kind), self.params.levels[kind.level]
        return self._made(kind, self.backend.rescale(x.components, kept, dropped))

    def drop(self, x: Ciphertext, level: int) -> Ciphertext:
        """To a lower level without dividing."""
        kind = rules.drop(self.params, self.type_of(x), level)
        if level == x.level:
            return x
        return self._made(kind, np.ascontiguousarray(x.components[:, : len(self._moduli(kind))]))

    def settle(self, x: Ciphertext) -> Ciphertext:
        """The same residues with a scale of a short fraction (see `rules.SETTLED_SCALE_BITS`)."""
        return self._made(rules.settle(self.type_of(x)), x.components)

    # --- automorphisms ------------------------------------------------------------------------------------

    def rotate(self, x: Ciphertext, steps: int) -> Ciphertext:
        """Turned left by `steps` slots."""
        return self.rotate_hoisted(x, [steps])[0]

    def rotate_hoisted(self, x: Ciphertext, steps: Sequence[int]) -> list[Ciphertext]:
        """Several rotations of one ciphertext, bit for bit those of `rotate`, sharing the costly part."""
        kind = rules.rotate(self.type_of(x))
        turns = [step % self.params.slots for step in steps]
        moving = sorted(set(turns) - {0})
        keys = [self.rotation_key(step, kind.level) for step in moving]
        elements = [rotation_element(step, self.params.n) for step in moving]
        done = {0: x}
        if moving:
            context = self._context(kind.level)
            outs = self.composites.rotate_hoisted(x.components, elements, keys, context)
            done |= {step: self._made(kind, out) for step, out in zip(moving, outs, strict=True)}
        return [done[turn] for turn in turns]

    def rotate_sum(self, x: Ciphertext, steps: Sequence[int]) -> Ciphertext:
        """x + Σ rotations of x, sharing decomposition and division (so not bit for bit the sum of `rotate`s)."""
        kind = rules.rotate(self.type_of(x))
        turns = [step % self.params.slots for step in steps]
        if 0 in turns or not turns:
            raise LatticeError("circuit_invalid", "A sum of rotations takes at least one step, and none may be 0.")
        keys = [self.rotation_key(step, kind.level) for step in turns]
        elements = [rotation_element(step, self.params.n) for step in turns]
        return self._made(kind, self.composites.rotate_sum(x.components, elements, keys, self._context(kind.level)))

    def conjugate(self, x: Ciphertext) -> Ciphertext:
        """Complex conjugation of every slot."""
        kind = rules.rotate(self.type_of(x))
        element = conjugation_element(self.params.n)
        key = self.key(element, kind.level)
        return self._made(kind, self.composites.rotate(x.components, element, key, self._context(kind.level)))

    # --- sums of products ---------------------------------------------------------------------------------

    def matrix(self, inputs: Sequence[Ciphertext], diagonals: Diagonals, plan: ProductPlan) -> list[Ciphertext]:
        """Matrix–vector products; `plan` counts in steps, as programs do, and is turned into Galois elements here."""
        kind = rules.matrix(self.params, self._types(inputs), self.check_plain(diagonals))
        check_plan(plan, len(inputs), len(diagonals.polys))
        moving = sorted(set(plan.babies + plan.giants) - {0})
        keys = {rotation_element(step, self.params.n): self.rotation_key(step, kind.level) for step in moving}
        elements = plan._replace(
            babies=tuple(rotation_element(step, self.params.n) for step in plan.babies),
            giants=tuple(rotation_element(step, self.params.n) for step in plan.giants),
        )
        tensors, context = [x.components for x in inputs], self._context(kind.level)
        outs = self.composites.matrix(tensors, diagonals.polys, keys, elements, context)
        return [self._made(kind, out) for out in outs]

    def sum_plain(self, inputs: Sequence[Ciphertext], plain: Diagonals, terms: Terms) -> list[Ciphertext]:
        """For each result Σ plain[d] ⊙ inputs[i] over its (i, d); nothing is rescaled."""
        kind = rules.sum_plain(self.params, self._types(inputs), self.check_plain(plain))
        check_terms(terms, len(inputs), len(plain.polys))
        outs = self.composites.sum_plain([x.components for x in inputs], plain.polys, terms, self._moduli(kind))
        return [self._made(kind, out) for out in outs]

    def sum_periodic(
        self, inputs: Sequence[Ciphertext], plain: PeriodicWeights, outs: int | None = None
    ) -> list[Ciphertext]:
        """For each result a, Σ_i plain[a, i] ⊙ inputs[i]; nothing is rescaled. Only the product of the weights' first
        two sizes is part of their type, so they are read as a matrix of `outs` rows, whatever their own."""
        rows = len(plain.residues) if outs is None else outs
        kind = rules.sum_periodic(self.params, self._types(inputs), self.check_plain(plain), rows)
        weights = plain.residues.reshape(rows, len(inputs), *plain.residues.shape[2:])
        results = self.composites.sum_periodic([x.components for x in inputs], weights, self._moduli(kind))
        return [self._made(kind, out) for out in results]

    # --- keys ---------------------------------------------------------------------------------------------

    def _context(self, level: int) -> KeySwitchContext:
        return self.params.key_switch_context(level, level)

    def rotation_key(self, steps: int, level: int) -> Residues:
        """The key that turns left by `steps`, or an error that names it."""
        return self.key(rotation_element(steps, self.params.n), level)

    def key(self, element: int, level: int) -> Residues:
        """The key for a Galois element at a level, or an error that says what it would be for."""
        assert element != IDENTITY, "the identity needs no key"
        tensor = self.keys.tensor(element, level) if self.keys is not None else None
        if tensor is None:
            what = describe(element, self.params.n)
            raise LatticeError(
                "missing_evaluation_key",
                f"There is no key for the {what} at level {level}.",
                details={"key": what, "element": element, "level": level},
            )
        return tensor


def rounded_at(value: float, scale: Fraction) -> int:
    """value·scale to the nearest integer, ties to even, exactly."""
    return round(Fraction(value) * scale)
