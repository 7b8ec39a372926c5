"""Secret randomness: ternary secrets, centred binomial errors, wide Gaussians for flooding.

Every object gets its own 32-byte seed from the operating system; AES-256-CTR (`ckks.seeds.KeyStream`) stretches it,
one stream for each polynomial. Secret seeds and public seeds are drawn apart and never stand in for one another.

Ternary: of each 64-bit word, the 32 two-bit fields from the lowest on; a field f < 3 is the value f - 1, 3 is skipped.

Error: of each 64-bit word, popcount(lowest η bits) - popcount(next η bits), η = 21, so that σ = √(η/2) = 3.24 (the
centred binomial of Alkim, Ducas, Pöppelmann, Schwabe, eprint 2015/1092, at the width that eprint 2024/463 asks for).

Gaussian for flooding: Box–Muller on 53-bit uniforms in doubles, rounded. Only differential privacy leans on it, not
the hardness of LWE.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.ckks.seeds import SEED_BYTES, KeyStream, Stream

Small = NDArray[np.int64]
"""Small signed coefficients `[n]`."""


def fresh_seed() -> bytes:
    """32 bytes from the operating system. The one place where seeds come from; each is used for one object."""
    return os.urandom(SEED_BYTES)


def wipe(*buffers: NDArray[Any]) -> None:
    """Overwrite arrays in place (a view writes through to what it shows)."""
    for buffer in buffers:
        if buffer.flags.writeable:
            buffer.fill(0)


WHOLE_BITS = 45
"""Deviations up to 2^45 are sampled to the last unit in doubles."""


class SecretSource:
    """The secret randomness of one object: a fresh seed whose streams are told apart by type and number."""

    def __init__(self) -> None:
        self._seed = fresh_seed()

    def ternary(self, n: int, kind: Stream = Stream.SECRET) -> Small:
        """Uniform over {-1, 0, 1}."""
        return ternary(KeyStream(self._seed, kind), n)

    def error(self, n: int, eta: int, number: int = 0) -> Small:
        """Centred binomial."""
        return centred_binomial(KeyStream(self._seed, Stream.ERROR, number), n, eta)

    def gaussian(self, n: int, sigma: float) -> tuple[NDArray[np.float64], Small]:
        """Rounded normal values of any width: an integral double and a small integer to add to it.

        A wide double has no low bits, which would leave those of the result unmasked; so they are drawn apart.
        """
        spare = max(0, int(sigma).bit_length() - WHOLE_BITS)
        step = 2.0**spare
        high = rounded_gaussian(KeyStream(self._seed, Stream.FLOOD), n, sigma / step) * step
        low = KeyStream(self._seed, Stream.FLOOD, 1).words(n) & np.uint64((1 << spare) - 1)
        return high, low.view(np.int64)


def ternary(stream: KeyStream, n: int) -> Small:
    """n accepted two-bit fields, less one."""
    shifts = np.arange(0, 64, 2, dtype=np.uint64)
    out = np.empty(n, dtype=np.int64)
    done = 0
    while done < n:
        words = stream.words((n - done) // 24 + 8)
        fields = (words[:, None] >> shifts & np.uint64(3)).ravel()
        accepted = fields[fields < 3][: n - done]
        out[done : done + len(accepted)] = accepted.view(np.int64) - 1
        done += len(accepted)
        wipe(words, fields, accepted)
    return out


def centred_binomial(stream: KeyStream, n: int, eta: int) -> Small:
    """The difference of two sums of `eta` bits."""
    words = stream.words(n)
    mask = np.uint64((1 << eta) - 1)
    plus: Small = np.bitwise_count(words & mask).astype(np.int64)
    plus -= np.bitwise_count(words >> np.uint64(eta) & mask)
    wipe(words)
    return plus


def rounded_gaussian(stream: KeyStream, n: int, sigma: float) -> NDArray[np.float64]:
    """Normal with deviation `sigma`, rounded to integers that doubles hold."""
    words = (stream.words(2 * n) >> np.uint64(11)).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log((words[:n] + 1.0) / 2.0**53))
    return np.rint(sigma * radius * np.cos(2.0 * np.pi * (words[n:] / 2.0**53)))
