"""Uniform polynomials from 32-byte seeds: the halves of keys and ciphertexts that anybody may know and nobody need
send.

AES-256 in counter mode, key = seed, sixteen-byte counter block = stream id ‖ eight-byte counter from 0, both
big-endian. The stream id is object type (2 bytes) ‖ digit (2) ‖ prime (4), where `prime` is the index in Q, or 2^31 +
index in P, so that cutting a key to a lower level keeps its streams. Eight bytes of key stream, little-endian, are one
draw: the lowest ⌈log2 q⌉ bits are taken if they are below q, else the draw is skipped. The first N accepted draws are
the residues, in NTT form and bit-reversed order. Public: anything secret comes from `keys.sampling` and never from
such a seed.

`uniform_residues` is this definition over a reviewed library's AES. `UniformPolynomial` expands in native code where
the processor has AES instructions (`native/seeds`): six times as fast, the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from lattice.fhe.ckks.parameters import ParameterSet
from lattice.fhe.native_module import HAS_NATIVE, native
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
    """One stream of one seed, read in pieces. The seed may be any buffer; the library copies it."""

    def __init__(self, seed: bytes | memoryview, kind: int, digit: int = 0, prime: int = 0) -> None:
        block = stream_id(kind, digit, prime) + bytes(8)
        self._cipher = Cipher(algorithms.AES256(seed), modes.CTR(block)).encryptor()

    def fill(self, out: NDArray[np.uint8]) -> None:
        """The next bytes, into all of `out` but its last `SLACK`, which the library asks for."""
        for start in range(0, len(out) - SLACK, len(_ZEROS)):
            piece = min(len(_ZEROS), len(out) - SLACK - start)
            self._cipher.update_into(_ZEROS[:piece], out[start:].data)

    def words(self, count: int) -> NDArray[np.uint64]:
        """The next `count` little-endian words, in a buffer of their own that the caller may wipe."""
        out = np.empty(8 * count + SLACK, dtype=np.uint8)
        self.fill(out)
        return out[: 8 * count].view("<u8").astype(np.uint64, copy=False)


SLACK = 16
_ZEROS = memoryview(bytes(1 << 16))


def uniform_residues(seed: bytes, kind: int, digit: int, prime: int, q: int, n: int) -> Residues:
    """The first n accepted draws below q: the definition, in numpy."""
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


class UniformPolynomial:
    """Which streams of which seed make a uniform polynomial. Nothing is expanded before somebody needs it: encryption
    in native code expands a thousand residues at a time and forgets them.
    """

    def __init__(
        self, seed: bytes, kind: int, digit: int, moduli: Sequence[int], indices: Sequence[int], n: int
    ) -> None:
        if len(moduli) != len(indices):
            raise ValueError(f"{len(moduli)} primes need as many stream indices, not {len(indices)}.")
        self.seed, self.kind, self.digit = seed, kind, digit
        self.moduli, self.indices, self.n = tuple(moduli), tuple(indices), n

    def expand(self, out: Residues | None = None) -> Residues:
        """The polynomial `[limbs, n]` in NTT form; into `out`, if it is given."""
        shape = (len(self.moduli), self.n)
        room = out if out is not None else native.empty(shape) if HAS_NATIVE else np.empty(shape, dtype=np.uint64)
        if HAS_NATIVE and room.flags.c_contiguous and native.draw_kernel() != "portable":
            native.UniformPolynomial(self.seed, self.kind, self.digit, self.indices).expand_into(room, self.moduli)
            return room
        for limb, (index, q) in enumerate(zip(self.indices, self.moduli, strict=True)):
            room[limb] = uniform_residues(self.seed, self.kind, self.digit, index, q, self.n)
        return room

    def for_native(self) -> native.UniformPolynomial:
        """What native encryption takes. Where the machine has no AES of its own, the library's is the faster one."""
        if native.draw_kernel() == "portable":
            return native.UniformPolynomial(self.expand())
        return native.UniformPolynomial(self.seed, self.kind, self.digit, self.indices)


def uniform_polynomial(
    seed: bytes, kind: int, digit: int, moduli: Sequence[int], indices: Sequence[int], n: int
) -> Residues:
    """A uniform polynomial `[limbs, n]` in NTT form."""
    return UniformPolynomial(seed, kind, digit, moduli, indices, n).expand()
