"""Ciphertexts encrypted under the secret key travel at half the size: c1 is uniform, so its seed says it all."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Ciphertext, Encoding
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.seeds import SEED_BYTES, Stream, UniformPolynomial, prime_indices
from lattice.fhe.native_module import HAS_NATIVE, native
from lattice.fhe.ring.modulus import Residues


@dataclass(frozen=True, eq=False)
class SeededCiphertext:
    """c0 and the seed of c1. Public; whoever evaluates expands it."""

    params_id: str
    level: int
    scale: Fraction
    seed: bytes = field(repr=False)
    c0: Residues = field(repr=False)
    """`[limbs, N]`, NTT form."""
    encoding: Encoding = Encoding.SLOTS

    def check(self, params: ParameterSet) -> None:
        """The value belongs to `params` and has the form that its level says."""
        if self.params_id != params.id:
            raise LatticeError("parameters_mismatch", f"The value has parameters {self.params_id}, not {params.id}.")
        if self.c0.shape != (len(params.q_moduli(self.level)), params.n) or len(self.seed) != SEED_BYTES:
            raise LatticeError("parameters_mismatch", f"A tensor of shape {self.c0.shape} is not one of this level.")

    def expand(self, params: ParameterSet) -> Ciphertext:
        """Both components."""
        self.check(params)
        shape = (2, *self.c0.shape)
        components = (
            native.empty(shape) if HAS_NATIVE else np.empty(shape, dtype=np.uint64)
        )  # recycled memory is faster
        components[0] = self.c0
        ciphertext_half(params, self.seed, self.level).expand(components[1])
        return Ciphertext(self.params_id, self.level, self.scale, components, self.encoding)


def ciphertext_half(params: ParameterSet, seed: bytes, level: int) -> UniformPolynomial:
    """c1 of a seeded ciphertext, not expanded."""
    indices = prime_indices(params, level, special=False)
    return UniformPolynomial(seed, Stream.CIPHERTEXT, 0, params.q_moduli(level), indices, params.n)
