"""Evaluation keys as public values: what an evaluator holds and what travels. Making them is `keys.evaluation`.

A key for the automorphism X ↦ X^g, or for s² (element 0), at level ℓ is, for each digit d of ℓ, a pair over Q_ℓ ∪ P in
NTT form: b_d = -a_d·s + e_d + P·g_d·s'. The halves a_d are uniform and are kept as one seed (`seeds`); only the b_d
are stored. Keys are cut to the level they are made for, and one made for a higher level serves lower ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.seeds import SEED_BYTES, Stream, UniformPolynomial, prime_indices
from lattice.fhe.ring.automorphism import check_element, conjugation_element, rotation_element
from lattice.fhe.ring.modulus import Residues

RELINEARISATION = 0
"""The element that stands for s² instead of an automorphism."""


class KeySpec(NamedTuple):
    """Which key: the server's list of what a program needs is a list of these."""

    element: int
    level: int

    @classmethod
    def relinearisation(cls, level: int) -> KeySpec:
        """For products of two ciphertexts at `level` or below."""
        return cls(RELINEARISATION, level)

    @classmethod
    def rotation(cls, steps: int, level: int, params: ParameterSet) -> KeySpec:
        """For rotating slots to the left by `steps`."""
        return cls(rotation_element(steps, params.n), level)

    @classmethod
    def conjugation(cls, level: int, params: ParameterSet) -> KeySpec:
        """For complex conjugation."""
        return cls(conjugation_element(params.n), level)

    @property
    def id(self) -> str:
        """`relinearisation@3` or `galois-25@3`."""
        return f"{'relinearisation' if self.element == RELINEARISATION else f'galois-{self.element}'}@{self.level}"

    @property
    def stream(self) -> Stream:
        """The stream type of the key's a-halves."""
        return Stream.RELINEARISATION if self.element == RELINEARISATION else Stream.GALOIS

    def check(self, params: ParameterSet) -> None:
        """The element is an automorphism of the ring and the level exists."""
        params.digit_plan(self.level)
        if self.element != RELINEARISATION:
            check_element(self.element, params.n)


@dataclass(frozen=True, eq=False)
class EvaluationKey:
    """One key, its uniform halves as a seed."""

    params_id: str
    spec: KeySpec
    seed: bytes = field(repr=False)
    b: Residues = field(repr=False)
    """`[digits, limbs, N]` over Q_level ∪ P, NTT form."""

    @property
    def id(self) -> str:
        """The id of its spec."""
        return self.spec.id

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything, by which evaluators cache expanded keys."""
        digest = hashlib.sha256(f"{self.params_id} {self.id} ".encode() + self.seed)
        digest.update(np.ascontiguousarray(self.b, dtype="<u8").data)
        return digest.hexdigest()

    def check(self, params: ParameterSet) -> None:
        """The key belongs to `params` and has the form that its spec says."""
        if self.params_id != params.id:
            raise LatticeError("parameters_mismatch", f"The key has parameters {self.params_id}, not {params.id}.")
        self.spec.check(params)
        plan = params.digit_plan(self.spec.level)
        if self.b.shape != (len(plan.digits), len(plan.moduli), params.n) or len(self.seed) != SEED_BYTES:
            raise LatticeError("parameters_mismatch", f"The key {self.id} has a tensor of the shape {self.b.shape}.")

    def uniform_half(self, params: ParameterSet, digit: int) -> Residues:
        """a_d `[limbs, N]`, expanded from the seed."""
        return key_half(params, self.spec, self.seed, digit).expand()

    def tensor(self, params: ParameterSet) -> Residues:
        """`[digits, 2, limbs, N]`, halves in the order (b, a)."""
        self.check(params)
        out = np.empty((len(self.b), 2, *self.b.shape[1:]), dtype=np.uint64)
        for digit in range(len(self.b)):
            out[digit, 0] = self.b[digit]
            key_half(params, self.spec, self.seed, digit).expand(out[digit, 1])
        return out


def key_half(params: ParameterSet, spec: KeySpec, seed: bytes, digit: int) -> UniformPolynomial:
    """The uniform half of one digit of a key, not expanded."""
    moduli = params.digit_plan(spec.level).moduli
    indices = prime_indices(params, spec.level, special=True)
    return UniformPolynomial(seed, spec.stream, digit, moduli, indices, params.n)


class EvaluationKeySet:
    """The keys of one client for one program. Expands lazily and remembers the expansion."""

    def __init__(self, params: ParameterSet, keys: Iterable[EvaluationKey]) -> None:
        self.params = params
        self._keys: dict[KeySpec, EvaluationKey] = {}
        self._tensors: dict[KeySpec, Residues] = {}
        for key in keys:
            key.check(params)
            if key.spec in self._keys:
                raise LatticeError("parameters_mismatch", f"The key {key.id} is there twice.")
            self._keys[key.spec] = key

    @property
    def params_id(self) -> str:
        """Whose parameters these are."""
        return self.params.id

    @cached_property
    def id(self) -> str:
        """`evk_` and half a SHA-256 of the keys' hashes."""
        hashes = " ".join(sorted(key.hash for key in self))
        return f"evk_{hashlib.sha256(f'{self.params_id} {hashes}'.encode()).hexdigest()[:32]}"

    def __iter__(self) -> Iterator[EvaluationKey]:
        return (self._keys[spec] for spec in sorted(self._keys))

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"EvaluationKeySet({self.params_id}, {', '.join(key.id for key in self)})"

    def find(self, element: int, level: int) -> EvaluationKey | None:
        """The key made for `level`, or for the nearest higher one."""
        levels = [spec.level for spec in self._keys if spec.element == element and spec.level >= level]
        return self._keys[KeySpec(element, min(levels))] if levels else None

    def get(self, element: int, level: int) -> EvaluationKey:
        """`find`, or `missing_evaluation_key` with what is there."""
        found = self.find(element, level)
        if found is None:
            there = ", ".join(key.id for key in self) or "no key at all"
            raise LatticeError(
                "missing_evaluation_key",
                f"{KeySpec(element, level).id} (or one for a higher level) is needed; there is {there}.",
                details={"needs": KeySpec(element, level).id},
            )
        return found

    def tensor(self, element: int, level: int) -> Residues | None:
        """The expanded tensor of `find`'s key, whose limbs may go above `level` (see `KeySwitchContext`)."""
        found = self.find(element, level)
        if found is None:
            return None
        if found.spec not in self._tensors:
            self._tensors[found.spec] = found.tensor(self.params)
        return self._tensors[found.spec]
