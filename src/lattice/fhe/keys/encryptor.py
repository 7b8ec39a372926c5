"""Encryption: under the secret key (seeded, half the size), or under the public key (for third parties).

Secret key: c1 uniform from a fresh public seed, c0 = -c1·s + e + m. Public key: with u ternary and e0, e1 small, (b·u
+ e0, a·u + e1) over Q_ℓ ∪ P, divided by P with rounding, plus m on c0. The division takes the noise e·u, about √N·σ·2,
down to that of rounding. Without special primes it stays.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Ciphertext, Encoding, Plaintext, check_shape
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.public_key import PublicKey, public_half
from lattice.fhe.ckks.seeded import SeededCiphertext, ciphertext_half
from lattice.fhe.hal import backend as find_backend
from lattice.fhe.hal.backend import Backend
from lattice.fhe.keys.evaluation import recompute_bound
from lattice.fhe.keys.sampling import SecretSource, fresh_seed, wipe
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.keys.secret_memory import encrypt_into, encrypt_zero, room
from lattice.fhe.ring.modulus import Residues


class _Encrypting:
    """What both encryptors share."""

    def __init__(self, params: ParameterSet, backend: Backend | None) -> None:
        recompute_bound(params)
        self.params = params
        self.backend = backend or find_backend()
        self.encoder = Encoder(params, self.backend)

    def encode(
        self, values: ArrayLike, level: int | None, scale: Fraction | int | None, encoding: Encoding
    ) -> Plaintext:
        """The encoder's `encode`."""
        return self.encoder.encode(values, level=level, scale=scale, encoding=encoding)


class SecretKeyEncryptor(_Encrypting):
    """The client's own encryption. Each ciphertext has a public seed and error randomness of its own."""

    def __init__(self, secret: SecretKey, backend: Backend | None = None) -> None:
        super().__init__(secret.params, backend)
        self._secret = secret

    def encrypt(self, plaintext: Plaintext) -> SeededCiphertext:
        """Encrypt at the plaintext's own level."""
        check_shape(plaintext, self.params)
        seed, plain = fresh_seed(), np.ascontiguousarray(plaintext.poly)
        half = ciphertext_half(self.params, seed, plaintext.level)
        c0 = room(*plain.shape)
        with SecretSource() as source:
            error, eta = source.error(self.params.n), self.params.error_eta
            encrypt_into(self._secret.memory, c0, half, error, eta, plain=plain)
            wipe(error)
        return SeededCiphertext(self.params.id, plaintext.level, plaintext.scale, seed, c0, plaintext.encoding)

    def encrypt_values(
        self,
        values: ArrayLike,
        *,
        level: int | None = None,
        scale: Fraction | int | None = None,
        encoding: Encoding = Encoding.SLOTS,
    ) -> SeededCiphertext:
        """Encode, then encrypt."""
        return self.encrypt(self.encode(values, level, scale, encoding))


class PublicKeyEncryptor(_Encrypting):
    """Encryption by whoever has the public key; the ciphertext has its full size."""

    def __init__(self, params: ParameterSet, public: PublicKey, backend: Backend | None = None) -> None:
        super().__init__(params, backend)
        public.check(params)
        self._public = public

    def encrypt(self, plaintext: Plaintext) -> Ciphertext:
        """Encrypt at the plaintext's own level."""
        check_shape(plaintext, self.params)
        zero = self._encrypt_zero(plaintext.level)
        zero[0] = self.backend.add(zero[0], plaintext.poly, self.params.q_moduli(plaintext.level))
        return Ciphertext(self.params.id, plaintext.level, plaintext.scale, zero, plaintext.encoding)

    def encrypt_values(
        self,
        values: ArrayLike,
        *,
        level: int | None = None,
        scale: Fraction | int | None = None,
        encoding: Encoding = Encoding.SLOTS,
    ) -> Ciphertext:
        """Encode, then encrypt."""
        return self.encrypt(self.encode(values, level, scale, encoding))

    def rerandomise(self, ciphertext: Ciphertext) -> Ciphertext:
        """Add an encryption of zero, so that a result says nothing about how it was computed."""
        check_shape(ciphertext, self.params)
        if len(ciphertext.components) != 2:
            raise LatticeError("parameters_mismatch", "Relinearise the ciphertext first: it has three components.")
        moduli = self.params.q_moduli(ciphertext.level)
        components = self.backend.add(ciphertext.components, self._encrypt_zero(ciphertext.level), moduli)
        return Ciphertext(ciphertext.params_id, ciphertext.level, ciphertext.scale, components, ciphertext.encoding)

    def _encrypt_zero(self, level: int) -> Residues:
        q_moduli, special = self.params.q_moduli(level), self.params.special_at(level)
        n, b = self.params.n, self._public.b
        if len(b) > len(q_moduli) + len(special):
            b = np.concatenate([b[: len(q_moduli)], b[len(b) - len(special) :]])
        half = public_half(self.params, self._public.seed, level)
        with SecretSource() as source:
            u, errors = source.ternary(n), [source.error(n, number) for number in range(2)]
            wide = encrypt_zero(b, half, u, errors, self.params.error_eta, self.backend)
            wipe(u, *errors)
        return self.backend.mod_down(wide, q_moduli, special) if special else wide
