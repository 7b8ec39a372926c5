"""Evaluating programs whose values lie in coefficients, so that a reply says the results and nothing else.

A plaintext product with weights W leaves (c0·W, c1·W): whoever knows c1 solves the second for W, and the coefficients
of the decryption that are no results mix weights and features. So before a reply leaves,

* of c0 only the result coefficients are kept, all others are zero (an extraction to LWE ciphertexts under one c1: the
  decryption of a coefficient takes its c0 and the whole of c1, so the rest decrypts to noise from uniform c1);
* an encryption of zero under the client's public key is added, (b·u + f, a·u + e): without u, c1·W + a·u + e is
  uniform by RLWE, also for the owner of the secret key. f is uniform and wide: the client, who knows s and e_pk, sees
  e_pk·u + e·s + f at the results, and a narrow f would be a hint on u and e (Kim, Lee, Seo, Song, eprint 2023/623).

All of that randomness comes from a 32-byte seed, which is a PRF of a provider's secret and of *everything* that the
client chose (`blinding_seed`): two workers agree bit for bit, and no two different requests share an u.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Ciphertext, Encoding
from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ckks.public_key import PublicKey, public_uniform
from lattice.fhe.ckks.seeds import SEED_BYTES, KeyStream, Stream
from lattice.fhe.hal.backend import Backend
from lattice.fhe.keys.sampling import centred_binomial, ternary
from lattice.fhe.ring.modulus import Residues, reduce_signed

FLOOD_BITS = 22
"""The wide noise is uniform below 2^-22 of a result's scale: 1.4e-7 of deviation."""
LEAST_FLOOD = 11
"""2^11 at least, ten times e_pk·u + e·s."""


class BlindingKey(NamedTuple):
    """A client's public key, expanded and cut to level 0: what an evaluator keeps for repeated requests."""

    b: Residues
    a: Residues


def blinding_key(params: ParameterSet, public: PublicKey, level: int = 0) -> BlindingKey:
    """Both halves over the primes of Q at a level."""
    public.check(params)
    limbs = len(params.q_moduli(level))
    return BlindingKey(np.ascontiguousarray(public.b[:limbs]), public_uniform(params, public.seed, level)[:limbs])


def blinding_seed(secret: bytes, *request: bytes) -> bytes:
    """HMAC-SHA-256 of the lengths and digests of all that the client chose and that the answer depends on: the
    program and its weights, the public key, the evaluation keys, the ciphertexts."""
    if len(secret) < SEED_BYTES:
        raise LatticeError("values_unencodable", f"A provider's blinding secret has {SEED_BYTES} bytes or more.")
    mac = hmac.new(secret, b"lattice fhe blinding 1", hashlib.sha256)
    for part in request:
        mac.update(len(part).to_bytes(8, "big"))
        mac.update(hashlib.sha256(part).digest())
    return mac.digest()


def flood_bits(scale: Fraction) -> int:
    """The wide noise lies in −2^bits … 2^bits − 1."""
    whole = scale.numerator // scale.denominator
    return max(whole.bit_length() - 1 - FLOOD_BITS, LEAST_FLOOD)


def blind(
    params: ParameterSet, key: BlindingKey, seed: bytes, number: int, ciphertext: Ciphertext, used: NDArray[np.int64],
    backend: Backend,
) -> Ciphertext:
    """Output `number` of a request, ready to leave. `used` lists its result coefficients."""
    check_output(params, ciphertext, used)
    moduli, n = params.q_moduli(ciphertext.level), params.n
    u = backend.ntt(reduce_signed(ternary(KeyStream(seed, Stream.EPHEMERAL, number), n), moduli), moduli, n)
    noise = centred_binomial(KeyStream(seed, Stream.ERROR, number), n, params.error_eta)
    c1 = backend.add(ciphertext.components[1], backend.ntt(reduce_signed(noise, moduli), moduli, n), moduli)
    c1 = backend.mul_add(c1, key.a, u, moduli)
    mixed = backend.intt(backend.mul_add(ciphertext.components[0], key.b, u, moduli), moduli, n)
    flood = reduce_signed(_flood(seed, number, n, flood_bits(ciphertext.scale)), moduli)
    kept = np.zeros_like(mixed)
    kept[:, used] = backend.add(mixed, flood, moduli)[:, used]
    components = np.stack([backend.ntt(kept, moduli, n), c1])
    return Ciphertext(ciphertext.params_id, ciphertext.level, ciphertext.scale, components, ciphertext.encoding)


def check_output(params: ParameterSet, ciphertext: Ciphertext, used: Sequence[int] | NDArray[np.int64]) -> None:
    """Two components, in coefficients, with results that lie inside."""
    if ciphertext.encoding is not Encoding.COEFFICIENTS or len(ciphertext.components) != 2:
        raise LatticeError("circuit_invalid", "This blinding is for two-component ciphertexts in coefficients.")
    if not len(used) or min(used) < 0 or max(used) >= params.n:
        raise LatticeError("circuit_invalid", f"A reply carries 1 to {params.n} result coefficients.")


def _flood(seed: bytes, number: int, n: int, bits: int) -> NDArray[np.int64]:
    words = KeyStream(seed, Stream.FLOOD, number).words(n) & np.uint64((1 << (bits + 1)) - 1)
    return words.view(np.int64) - (1 << bits)
