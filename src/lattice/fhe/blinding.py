"""Outputs reveal only outputs: what an evaluator adds to a result before it leaves.

Two things would tell a client about the provider's weights. The slots that hold no result: they carry rounding of the
weights, partial sums, or nothing, by the weights' doing. And c1: the client knows its own c1 and its secret, so where
a result is c1 times a weight, a division gives the weight. So every output gets
- noise in the slots without a result, uniform up to an eighth of the modulus, and in the imaginary part of all slots;
- a fresh encryption of zero under the client's public key, after which c1 is as good as uniform.
The low bits of the result slots keep the computation's own error, which depends on the weights a little; hiding that
too would take flooding, and more bits of precision than programs have (see the documentation's limits).

All randomness comes from (the provider's secret, the hash of the request, and a tag of everything that the reply
depends on), so two workers that hold the secret agree bit for bit, nobody else can remove the noise, and no two
computations share it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Ciphertext, Encoding
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.public_key import PublicKey, public_uniform
from lattice.fhe.ckks.seeds import SEED_BYTES, KeyStream, Stream
from lattice.fhe.hal import backend as find_backend
from lattice.fhe.hal.backend import Backend
from lattice.fhe.native_module import native
from lattice.fhe.ring.modulus import Residues, reduce_signed

MIN_SECRET_BYTES = 16
NOISE_BITS = 50
"""The uniform noise stays below 2^50 even where the modulus has room: a double then disturbs no result."""
FLOOD_BITS = 22
LEAST_FLOOD_BITS, MOST_FLOOD_BITS = 11, 40
SLOT_NOISE = 0x9001
"""The stream of the slots' noise; the others are those of `ckks.seeds.Stream`."""


@dataclass(frozen=True)
class Blinding:
    """The provider's secret (at least 16 bytes, kept like a key) and the hash of the request."""

    provider_secret: bytes = field(repr=False)
    request_hash: bytes

    def __post_init__(self) -> None:
        if len(self.provider_secret) < MIN_SECRET_BYTES or not self.request_hash:
            message = f"A provider's secret has at least {MIN_SECRET_BYTES} bytes, and a request has a hash."
            raise LatticeError("parameters_mismatch", message)

    def bound(self, *parts: bytes | NDArray[np.uint64]) -> Blinding:
        """For exactly these weights, keys and ciphertexts. Whoever can have the same blinding twice for two
        different computations subtracts the replies, and what is left tells about weights or inner values; so
        `evaluate` binds everything that a reply depends on, whatever the caller hashed.

        GMAC under a key of its own, 30 GB/s: a universal hash whose value is never shown and only enters a PRF.
        """
        key = hmac.digest(self.provider_secret, b"lattice fhe request tag v1", "sha256")
        mac = Cipher(algorithms.AES256(key), modes.GCM(bytes(12))).encryptor()
        for part in parts:
            data = (
                part if isinstance(part, bytes) else np.ascontiguousarray(part, dtype="<u8").reshape(-1).data.cast("B")
            )
            mac.authenticate_additional_data(len(data).to_bytes(16, "big"))
            mac.authenticate_additional_data(data)
        mac.finalize()
        return Blinding(self.provider_secret, hashlib.sha256(self.request_hash + mac.tag).digest())

    def seed(self, output: int) -> bytes:
        """For one output; HKDF-SHA256 with the request's hash as salt."""
        info = b"lattice fhe blinding v1" + output.to_bytes(4, "big")
        return HKDF(SHA256(), SEED_BYTES, salt=self.request_hash, info=info).derive(self.provider_secret)


def request_hash(program_id: str, public: PublicKey, ciphertexts: Sequence[Ciphertext]) -> bytes:
    """SHA-256 of what was asked: the program, the client's public key, every residue of the inputs."""
    digest = hashlib.sha256(f"{program_id} {public.params_id} ".encode() + public.seed)
    digest.update(np.ascontiguousarray(public.b, dtype="<u8").data)
    for ciphertext in ciphertexts:
        digest.update(np.ascontiguousarray(ciphertext.components, dtype="<u8").data)
    return digest.digest()


class Blinder:
    """Blinds the outputs of one program for one client."""

    def __init__(self, params: ParameterSet, public: PublicKey, backend: Backend | None = None) -> None:
        public.check(params)
        self.params, self.public = params, public
        self.backend = backend or find_backend()
        self.encoder = Encoder(params, self.backend)
        self._uniform: dict[int, tuple[Residues, Residues]] = {}

    def blind(self, result: Ciphertext, entries: NDArray[np.int32], blinding: Blinding, output: int) -> Ciphertext:
        """The result with everything but its entries (those ≥ 0) hidden."""
        seed = blinding.seed(output)
        if result.encoding is Encoding.COEFFICIENTS:
            return self._blind_coefficients(result, entries, seed)
        moduli = self.params.q_moduli(result.level)
        if len(result.components) != 2:
            raise LatticeError("components_mismatch", "An output has three components; relinearise it.")
        zero = self._zero(seed, result.level)
        zero[0] = self.backend.add(zero[0], self._noise(seed, entries, moduli), moduli)
        components = self.backend.add(result.components, zero, moduli)
        return Ciphertext(result.params_id, result.level, result.scale, components, result.encoding)

    def _blind_coefficients(self, result: Ciphertext, entries: NDArray[np.int32], seed: bytes) -> Ciphertext:
        """(c0 + b·u, c1 + a·u + e), and then of c0 only the coefficients with entries, with wide noise on them: an
        extraction to LWE ciphertexts that share a c1. The other coefficients decrypt to noise."""
        n, eta, bits = self.params.n, self.params.error_eta, flood_bits(result.scale)
        moduli = self.params.q_moduli(result.level)
        b, a = (np.ascontiguousarray(half[: len(moduli)]) for half in self._halves(result.level))
        kept = np.ascontiguousarray(entries >= 0)
        u, e, flood = (
            KeyStream(seed, kind).words(count)
            for kind, count in ((Stream.EPHEMERAL, ternary_words(n)), (Stream.ERROR, n), (SLOT_NOISE, n))
        )
        if self.backend.name == "native":
            components = native.blind_coefficients(
                result.components, b, native.UniformPolynomial(a), u.view(np.uint8), e.view(np.uint8),
                flood.view(np.uint8), eta, bits, kept.view(np.uint8), moduli,
            )  # fmt: skip
        else:
            small = self._small(small_ternary(u, n), moduli)
            c0 = self.backend.intt(self.backend.mul_add(result.components[0], b, small, moduli), moduli, n)
            noise = (flood & np.uint64((2 << bits) - 1)).view(np.int64) - (1 << bits)
            c0 = np.where(kept, self.backend.add(c0, reduce_signed(noise, moduli), moduli), np.uint64(0))
            c1 = self.backend.add(result.components[1], self._small(small_errors(e, eta), moduli), moduli)
            c1 = self.backend.mul_add(c1, a, small, moduli)
            components = np.stack([self.backend.ntt(c0, moduli, n), c1])
        return Ciphertext(result.params_id, result.level, result.scale, components, result.encoding)

    def _noise(self, seed: bytes, entries: NDArray[np.int32], moduli: tuple[int, ...]) -> Residues:
        """Uniform numbers where no result lies, and imaginary ones everywhere, encoded at scale 1."""
        room = min(prod(moduli) // 8, 1 << NOISE_BITS)
        words = KeyStream(seed, SLOT_NOISE).words(2 * self.params.slots).view(np.int64)
        uniform = words.astype(np.float64) * (room / 2.0**63)
        slots = np.empty(self.params.slots, dtype=np.complex128)
        slots.real = np.where(entries >= 0, 0.0, uniform[: self.params.slots])
        slots.imag = uniform[self.params.slots :]
        return self.encoder.encode_over(slots, Fraction(1), moduli)

    def _zero(self, seed: bytes, level: int) -> Residues:
        """((b, a)·u + (e0, e1)) / P over the level's primes: an encryption of zero whose noise is that of rounding."""
        q_moduli, special, n = self.params.q_moduli(level), self.params.special_at(level), self.params.n
        moduli, (b, a), eta = (*q_moduli, *special), self._halves(level), self.params.error_eta
        u = KeyStream(seed, Stream.EPHEMERAL).words(ternary_words(n))
        errors = [KeyStream(seed, Stream.ERROR, number).words(n) for number in range(2)]
        if self.backend.name == "native":
            e0, e1 = (error.view(np.uint8) for error in errors)
            half = native.UniformPolynomial(a)
            wide = native.encrypt_zero(np.ascontiguousarray(b), half, u.view(np.uint8), e0, e1, eta, moduli)
        else:
            small = self._small(small_ternary(u, n), moduli)
            wide = np.empty((2, len(moduli), n), dtype=np.uint64)
            for number, part in enumerate((b, a)):
                error = self._small(small_errors(errors[number], eta), moduli)
                wide[number] = self.backend.mul_add(error, part, small, moduli)
        return self.backend.mod_down(wide, q_moduli, special) if special else wide

    def _halves(self, level: int) -> tuple[Residues, Residues]:
        """(b, a) of the public key, cut to the level; kept, since every request wants them."""
        if level not in self._uniform:
            top = len(self.public.b) - len(self.params.special_at(level))
            kept = len(self.params.q_moduli(level))
            b = np.concatenate([self.public.b[:kept], self.public.b[top:]])
            self._uniform[level] = b, public_uniform(self.params, self.public.seed, level)
        return self._uniform[level]

    def _small(self, values: NDArray[np.int64], moduli: tuple[int, ...]) -> Residues:
        return self.backend.ntt(reduce_signed(values, moduli), moduli, self.params.n)


def flood_bits(scale: Fraction) -> int:
    """Wide noise for results in coefficients lies in −2^bits … 2^bits − 1: 2^−22 of the scale, which costs 1.4e-7.

    A client sees e_pk·u + e·s and the noise at every result. Noise as narrow as e would be a hint on u and e, one for
    each coefficient that is used (Kim, Lee, Seo, Song, eprint 2023/623); eight times as wide as e_pk·u it is not.
    """
    whole = scale.numerator // scale.denominator
    return min(max(whole.bit_length() - 1 - FLOOD_BITS, LEAST_FLOOD_BITS), MOST_FLOOD_BITS)


def ternary_words(n: int) -> int:
    """Words that hold n accepted fields: a word has 24 on average, and 20 on average over any count that matters."""
    return n // 20 + 64


def small_ternary(words: NDArray[np.uint64], n: int) -> NDArray[np.int64]:
    """Of each word the 32 two-bit fields from the lowest on, those below 3, less one."""
    fields = (words[:, None] >> np.arange(0, 64, 2, dtype=np.uint64) & np.uint64(3)).ravel()
    return fields[fields < 3][:n].view(np.int64) - 1


def small_errors(words: NDArray[np.uint64], eta: int) -> NDArray[np.int64]:
    """popcount(lowest η bits) − popcount(next η bits) of each word."""
    mask = np.uint64((1 << eta) - 1)
    out: NDArray[np.int64] = np.bitwise_count(words & mask).astype(np.int64)
    out -= np.bitwise_count(words >> np.uint64(eta) & mask).astype(np.int64)
    return out
