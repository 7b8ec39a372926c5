"""Uniform polynomials from 32-byte seeds: the halves of keys and ciphertexts that anybody may know and nobody need
send.

AES-256 in counter mode, key = seed, sixteen-byte counter block = stream id ‖ eight-byte counter from 0, both
big-endian. The stream id is object type (2 bytes) ‖ digit (2) ‖ prime (4), where `prime` is the index in Q, or 2^31 +
index in P, so that cutting a key to a lower level keeps its streams. Eight bytes of key stream, little-endian, are one
draw: the lowest ⌈log2 q⌉ bits are taken if they are below q, else the draw is skipped. The first N accepted draws are
the residues, in NTT form and bit-reversed order. Public: anything secret comes from `keys.sampling` and never from
such a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.ring.modulus import Residues

SEED_BYTES = 32
SPECIAL_INDEX = 1 << 31


class Stream(IntEnum):
    """What a stream is for: the first two bytes of its id."""

    PUBLIC_KEY = 1
    RELINEARISATION = 2
    GALOIS = 3
    CIPHERTEXT = 4
    SECRET = 0x8001
    ERROR = 0x8002
    EPHEMERAL = 0x8003
    FLOOD = 0x8004


def stream_id(kind: int, digit: int, prime: int) -> bytes:
    """The first half of the counter block."""
    return kind.to_bytes(2, "big") + digit.to_bytes(2, "big") + prime.to_bytes(4, "big")


class KeyStream:
    """One stream of one seed, read in pieces."""

    def __init__(self, seed: bytes, kind: int, digit: int = 0, prime: int = 0) -> None:
        block = stream_id(kind, digit, prime) + bytes(8)
        self._cipher = Cipher(algorithms.AES256(seed), modes.CTR(block)).encryptor()

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next `count` little-endian words, in a buffer of their own that the caller may wipe."""
        out = np.empty(count + 2, dtype="<u8")  # the library asks for a block of slack
        self._cipher.update_into(bytes(8 * count), out.view(np.uint8).data)
        return out[:count].astype(np.uint64, copy=False)


def uniform_residues(seed: bytes, kind: int, digit: int, prime: int, q: int, n: int) -> Residues:
    """The first n accepted draws below q."""
    stream = KeyStream(seed, kind, digit, prime)
    bits = q.bit_length()
    mask = np.uint64((1 << bits) - 1)
    chosen: list[NDArray[np.uint64]] = []
    missing = n
    while missing > 0:
        rate = q / (1 << bits)
        draws = stream.words(int(missing / rate) + 64) & mask
        accepted = draws[draws < q] if rate < 1.0 else draws
        chosen.append(accepted[:missing])
        missing -= len(chosen[-1])
    return chosen[0] if len(chosen) == 1 else np.concatenate(chosen)


def prime_indices(params: ParameterSet, level: int, *, special: bool) -> list[int]:
    """The stream indices of the limbs at `level`, special primes last."""
    q_limbs, p_limbs = len(params.q_moduli(level)), len(params.special_at(level)) if special else 0
    return [*range(q_limbs), *(SPECIAL_INDEX + j for j in range(p_limbs))]


def uniform_polynomial(
    seed: bytes, kind: int, digit: int, moduli: Sequence[int], indices: Sequence[int], n: int
) -> Residues:
    """A uniform polynomial `[limbs, n]` in NTT form."""
    limbs = [uniform_residues(seed, kind, digit, i, q, n) for i, q in zip(indices, moduli, strict=True)]
    return np.stack(limbs)
