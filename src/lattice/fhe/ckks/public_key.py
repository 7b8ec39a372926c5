"""The public key, for third parties that send encrypted inputs: (b, a) = (-a·s + e, a) over Q ∪ P.

It spans the special primes too, because public-key encryption encrypts over Q ∪ P and divides by P: its noise is then
that of rounding, about a hundred times below that of encrypting over Q.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.seeds import SEED_BYTES, Stream, UniformPolynomial, prime_indices
from lattice.fhe.ring.modulus import Residues


@dataclass(frozen=True, eq=False)
class PublicKey:
    """Public. The uniform half is a seed."""

    params_id: str
    seed: bytes = field(repr=False)
    b: Residues = field(repr=False)
    """`[limbs of Q ∪ P, N]`, NTT form."""

    def check(self, params: ParameterSet) -> None:
        """The key belongs to `params`."""
        if self.params_id != params.id:
            raise LatticeError("parameters_mismatch", f"The key has parameters {self.params_id}, not {params.id}.")
        if self.b.shape != (len(params.primes()), params.n) or len(self.seed) != SEED_BYTES:
            raise LatticeError("parameters_mismatch", f"The public key has a tensor of the shape {self.b.shape}.")


def public_half(params: ParameterSet, seed: bytes, level: int) -> UniformPolynomial:
    """The uniform half, cut to a level and not expanded."""
    moduli = (*params.q_moduli(level), *params.special_at(level))
    indices = prime_indices(params, level, special=True)
    return UniformPolynomial(seed, Stream.PUBLIC_KEY, 0, moduli, indices, params.n)


def public_uniform(params: ParameterSet, seed: bytes, level: int) -> Residues:
    """The uniform half, cut to a level."""
    return public_half(params, seed, level).expand()
