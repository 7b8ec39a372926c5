"""Residues as ⌈log2 q⌉-bit fields: a limb of N residues takes N·bits/8 bytes, in bit-reversed NTT order.

Field i of a limb occupies the bits [i·bits, (i+1)·bits) of a little-endian bit string (bit k is bit k mod 8 of byte k
// 8). 64 fields fill `bits` whole words, so the packing is written as 64 steps, each over all groups of 64 residues at
once. Unpacking refuses a residue that is not below its prime.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lattice.core.errors import LatticeError
from lattice.fhe.ring.modulus import Residues

GROUP = 64
ROWS_AT_ONCE = 8


def field_bits(q: int) -> int:
    """Bits of a residue modulo q."""
    return (q - 1).bit_length()


def limb_bytes(q: int, n: int) -> int:
    """Bytes of a packed limb."""
    return n * field_bits(q) // 8


def packed_bytes(moduli: Sequence[int], n: int) -> int:
    """Bytes of a packed polynomial."""
    return sum(limb_bytes(q, n) for q in moduli)


def _runs(moduli: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(start, end, bits) of stretches of limbs of equal width, so that they can be handled together."""
    start = 0
    for end in range(1, len(moduli) + 1):
        bits = field_bits(moduli[start])
        if end == len(moduli) or field_bits(moduli[end]) != bits or end - start == ROWS_AT_ONCE:
            yield start, end, bits
            start = end


def _pack_rows(rows: Residues, bits: int) -> bytes:
    fields = np.ascontiguousarray(rows.reshape(-1, GROUP).T)
    words = np.zeros((bits, fields.shape[1]), dtype=np.uint64)
    for i in range(GROUP):
        word, shift = divmod(i * bits, 64)
        words[word] |= fields[i] << np.uint64(shift)
        if shift + bits > 64:
            words[word + 1] |= fields[i] >> np.uint64(64 - shift)
    return words.T.astype("<u8", order="C").tobytes()


def _unpack_rows(words: NDArray[np.uint64], count: int, n: int, bits: int) -> Residues:
    columns = np.ascontiguousarray(words.reshape(-1, bits).T)
    fields = np.empty((GROUP, columns.shape[1]), dtype=np.uint64)
    for i in range(GROUP):
        word, shift = divmod(i * bits, 64)
        np.right_shift(columns[word], np.uint64(shift), out=fields[i])
        if shift + bits > 64:
            fields[i] |= columns[word + 1] << np.uint64(64 - shift)
    fields &= np.uint64((1 << bits) - 1)
    return np.ascontiguousarray(fields.T).reshape(count, n)


def pack(poly: Residues, moduli: Sequence[int]) -> bytes:
    """`[limbs, N]`, N a multiple of 64, to bytes."""
    return b"".join(_pack_rows(poly[start:end], bits) for start, end, bits in _runs(moduli))


def unpack(data: bytes | memoryview, moduli: Sequence[int], n: int) -> Residues:
    """Bytes to `[limbs, N]`; `blob_invalid` for a wrong length or a residue out of range."""
    if len(data) != packed_bytes(moduli, n):
        raise LatticeError("blob_invalid", f"{len(data)} bytes were given for {packed_bytes(moduli, n)} of residues.")
    out = np.empty((len(moduli), n), dtype=np.uint64)
    at = 0
    for start, end, bits in _runs(moduli):
        size = (end - start) * n * bits // 8
        words = np.frombuffer(data, dtype="<u8", count=size // 8, offset=at).astype(np.uint64, copy=False)
        out[start:end] = _unpack_rows(words, end - start, n, bits)
        at += size
    if (out >= np.array(moduli, dtype=np.uint64)[:, None]).any():
        raise LatticeError("blob_invalid", "A residue is not below its prime.")
    return out
