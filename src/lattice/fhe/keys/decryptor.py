"""Decryption, and what may be done with a decryption.

A CKKS decryption carries the encryption noise, and whoever sees both a ciphertext and its *raw* decryption can solve
for the secret key (Li & Micciancio, eprint 2020/1533: IND-CPA-D). So `values` and `decrypt` are for the owner of the
key, who shows nobody the exact numbers. To share a result, `decrypt_for_sharing` adds Gaussian noise that drowns the
computation's own (Li, Micciancio, Schultz, Sorrell, eprint 2022/816).

With an error of at most B in each of the N coefficients and t shared results under one key, deviation
√(12·t·N)·2^(s/2)·B keeps the Kullback–Leibler divergence from results without any error below 2^-s/24: s bits in that
paper's measure. `docs/explanation/encrypted-core.md` derives it and says what it means. For s = 40, 16 results and N =
2^13 that costs 30 bits of precision, and it protects only if B really is a bound; the compiler computes one for each
program.
"""

from __future__ import annotations

from math import exp2, log2, prod, sqrt

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Ciphertext, Plaintext, check_shape, show_scale
from lattice.fhe.ckks.encoder import Encoder, integral_residues
from lattice.fhe.ckks.seeded import SeededCiphertext
from lattice.fhe.hal import backend as find_backend
from lattice.fhe.hal.backend import Backend
from lattice.fhe.keys.evaluation import recompute_bound
from lattice.fhe.keys.sampling import SecretSource, wipe
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.ring.modulus import reduce_signed

TAIL = 6.5
"""Deviations that a Gaussian coefficient does not exceed, but for 10^-10."""


def flooding_deviation(n: int, error_bound: float, shared_results: int, statistical_bits: int) -> float:
    """σ of every coefficient: see the module. n, because all coefficients tell of one error together."""
    return sqrt(12.0 * shared_results * n) * exp2(statistical_bits / 2) * error_bound


class Decryptor:
    """Decrypts for the owner of the secret key."""

    def __init__(self, secret: SecretKey, backend: Backend | None = None) -> None:
        recompute_bound(secret.params)
        self.params = secret.params
        self.backend = backend or find_backend()
        self.encoder = Encoder(self.params, self.backend)
        self._secret = secret

    def __repr__(self) -> str:
        return f"Decryptor({self._secret!r})"

    def decrypt(self, ciphertext: Ciphertext | SeededCiphertext) -> Plaintext:
        """c0 + c1·s + c2·s². Sensitive: see the module."""
        full = ciphertext.expand(self.params) if isinstance(ciphertext, SeededCiphertext) else ciphertext
        check_shape(full, self.params)
        moduli = self.params.q_moduli(full.level)
        poly = self._secret.memory.decrypt(np.ascontiguousarray(full.components), moduli)
        return Plaintext(self.params.id, full.level, full.scale, poly, full.encoding)

    def values(self, ciphertext: Ciphertext | SeededCiphertext, count: int | None = None) -> NDArray[np.complex128]:
        """The decrypted values as complex numbers. Sensitive: see the module."""
        return self.encoder.decode(self.decrypt(ciphertext), count)

    def real_values(self, ciphertext: Ciphertext | SeededCiphertext, count: int | None = None) -> NDArray[np.float64]:
        """Their real parts. Sensitive: see the module."""
        return self.encoder.decode_real(self.decrypt(ciphertext), count)

    def decrypt_for_sharing(
        self,
        ciphertext: Ciphertext | SeededCiphertext,
        *,
        error_bound: float,
        shared_results: int = 16,
        statistical_bits: int = 40,
        count: int | None = None,
    ) -> NDArray[np.complex128]:
        """Values that may be shown to others, with flooding noise.

        `error_bound` bounds the error of every *coefficient* of the decrypted polynomial, in units of 1 (not of the
        scale).
        """
        if not (0 < error_bound < float("inf")) or shared_results < 1 or statistical_bits < 1:
            raise LatticeError("values_unencodable", "The error bound and the counts must be positive numbers.")
        plaintext = self.decrypt(ciphertext)
        sigma = flooding_deviation(self.params.n, error_bound, shared_results, statistical_bits)
        moduli = self.params.q_moduli(plaintext.level)
        self._check_room(sigma, plaintext)
        with SecretSource() as source:
            high, low = source.gaussian(self.params.n, sigma)
        noise = self.backend.add(integral_residues(high, moduli), reduce_signed(low, moduli), moduli)
        flooded = self.backend.add(plaintext.poly, self.backend.ntt(noise, moduli, self.params.n), moduli)
        wipe(high, low, noise, plaintext.poly)
        return self.encoder.decode_poly(flooded, plaintext.level, plaintext.scale, plaintext.encoding)[..., :count]

    def _check_room(self, sigma: float, plaintext: Plaintext) -> None:
        """The noise must stay below the scale (else nothing is left of the values) and far below the modulus."""
        modulus = prod(self.params.q_moduli(plaintext.level))
        if sigma * TAIL * 2 >= modulus or sigma * TAIL >= plaintext.scale:
            raise LatticeError(
                "level_exhausted",
                f"Flooding needs a deviation of 2^{log2(sigma):.1f}; the scale is {show_scale(plaintext.scale)} and "
                f"the modulus has {modulus.bit_length()} bits. A larger scale is needed.",
            )
