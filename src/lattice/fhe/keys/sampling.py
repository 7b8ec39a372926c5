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
from types import TracebackType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from lattice.fhe.ckks.seeds import SEED_BYTES, SLACK, KeyStream, Stream
from lattice.fhe.native_module import HAS_NATIVE, native

Small = NDArray[np.int64]
"""Small signed coefficients `[n]`."""

SecretBytes = NDArray[np.uint8]
"""From `secret_bytes`."""


def fresh_seed() -> bytes:
    """A public seed: 32 bytes from the operating system. Each is used for one object."""
    return os.urandom(SEED_BYTES)


def secret_bytes(count: int) -> SecretBytes:
    """Room for secrets: with the native module in locked memory that no core dump has, and that is wiped when nobody
    refers to it any more. Without it, plain memory that the caller wipes.
    """
    return native.secret_bytes(count) if HAS_NATIVE else np.empty(count, dtype=np.uint8)


def fill_random(out: SecretBytes) -> None:
    """Randomness of the operating system, with the native module straight from the kernel."""
    if HAS_NATIVE:
        native.fill_random(out)
    else:
        out[:] = np.frombuffer(os.urandom(len(out)), dtype=np.uint8)


def wipe(*buffers: NDArray[Any]) -> None:
    """Overwrite arrays in place (a view writes through to what it shows)."""
    for buffer in buffers:
        if buffer.flags.writeable:
            buffer.fill(0)


WHOLE_BITS = 45
"""Deviations up to 2^45 are sampled to the last unit in doubles."""


class Unshared:
    """What holds a secret is not pickled or copied, not even by accident of a library that does so."""

    __slots__ = ()

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError("a secret is not pickled or copied; `store_format` encrypts a key for storage")

    __reduce_ex__ = __reduce__ = __getstate__ = __copy__ = __deepcopy__ = _refuse


class SecretSource(Unshared):
    """The secret randomness of one object: a fresh seed whose streams are told apart by type and number. Use it in a
    `with` block, which wipes the seed.
    """

    def __init__(self) -> None:
        self._seed = secret_bytes(SEED_BYTES)
        fill_random(self._seed)

    def ternary(self, n: int, kind: Stream = Stream.SECRET) -> SecretBytes:
        """Key stream enough for n ternary coefficients (of `ternary_of`), with a chance of 2^-100 that it is not."""
        return self._bytes(kind, 0, 8 * (n // 20 + 64))

    def error(self, n: int, number: int = 0) -> SecretBytes:
        """Key stream for n errors (of `binomial_of`)."""
        return self._bytes(Stream.ERROR, number, 8 * n)

    def gaussian(self, n: int, sigma: float) -> tuple[NDArray[np.float64], Small]:
        """Rounded normal values of any width: an integral double and a small integer to add to it.

        A wide double has no low bits, which would leave those of the result unmasked; so they are drawn apart.
        """
        spare = max(0, int(sigma).bit_length() - WHOLE_BITS)
        step = 2.0**spare
        high = rounded_gaussian(self._stream(Stream.FLOOD), n, sigma / step) * step
        low = self._stream(Stream.FLOOD, 1).words(n) & np.uint64((1 << spare) - 1)
        return high, low.view(np.int64)

    def _stream(self, kind: Stream, number: int = 0) -> KeyStream:
        return KeyStream(self._seed.data, kind, number)

    def _bytes(self, kind: Stream, number: int, count: int) -> SecretBytes:
        out = secret_bytes(count + SLACK)
        self._stream(kind, number).fill(out)
        return out[:count]

    def __repr__(self) -> str:
        return "SecretSource()"

    def __enter__(self) -> SecretSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        wipe(self._seed)


def ternary(stream: KeyStream, n: int) -> Small:
    """n accepted two-bit fields, less one."""
    out = np.empty(n, dtype=np.int64)
    done = 0
    while done < n:
        words = stream.words((n - done) // 24 + 8)
        accepted = ternary_of(words, n - done)
        out[done : done + len(accepted)] = accepted
        done += len(accepted)
        wipe(words, accepted)
    return out


def ternary_of(words: NDArray[np.uint64], most: int) -> Small:
    """What `words` have of accepted fields, less one; `most` at most."""
    fields = (words[:, None] >> np.arange(0, 64, 2, dtype=np.uint64) & np.uint64(3)).ravel()
    accepted = fields[fields < 3][:most]
    out: Small = accepted.view(np.int64) - 1
    wipe(fields, accepted)
    return out


def centred_binomial(stream: KeyStream, n: int, eta: int) -> Small:
    """The difference of two sums of `eta` bits."""
    words = stream.words(n)
    out = binomial_of(words, eta)
    wipe(words)
    return out


def binomial_of(words: NDArray[np.uint64], eta: int) -> Small:
    """One value for each word."""
    mask = np.uint64((1 << eta) - 1)
    plus: Small = np.bitwise_count(words & mask).astype(np.int64)
    plus -= np.bitwise_count(words >> np.uint64(eta) & mask)
    return plus


def rounded_gaussian(stream: KeyStream, n: int, sigma: float) -> NDArray[np.float64]:
    """Normal with deviation `sigma`, rounded to integers that doubles hold."""
    words = (stream.words(2 * n) >> np.uint64(11)).astype(np.float64)
    radius = np.sqrt(-2.0 * np.log((words[:n] + 1.0) / 2.0**53))
    out: NDArray[np.float64] = np.rint(sigma * radius * np.cos(2.0 * np.pi * (words[n:] / 2.0**53)))
    wipe(words, radius)
    return out
