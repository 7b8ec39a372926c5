"""The expansion of seeds, against a second implementation written from the words of the specification."""

from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from lattice.fhe.ckks.seeds import (
    SPECIAL_INDEX,
    KeyStream,
    Stream,
    prime_indices,
    stream_id,
    uniform_polynomial,
    uniform_residues,
)
from tests.support.fhe import deep

SEED = bytes(range(32))


def block(seed: bytes, kind: int, digit: int, prime: int, counter: int) -> bytes:
    """One AES block of the stream, by ECB."""
    plain = kind.to_bytes(2, "big") + digit.to_bytes(2, "big") + prime.to_bytes(4, "big") + counter.to_bytes(8, "big")
    return Cipher(algorithms.AES256(seed), modes.ECB()).encryptor().update(plain)


def by_the_book(seed: bytes, kind: int, digit: int, prime: int, q: int, n: int) -> list[int]:
    out: list[int] = []
    mask = (1 << q.bit_length()) - 1
    counter = 0
    while len(out) < n:
        data = block(seed, kind, digit, prime, counter)
        counter += 1
        for at in (0, 8):
            draw = int.from_bytes(data[at : at + 8], "little") & mask
            if draw < q:
                out.append(draw)
    return out[:n]


@pytest.mark.parametrize("q", [deep().base[0], deep().special[0], 12289, (1 << 25) + 1, 257])
def test_it_is_what_the_words_say(q: int) -> None:
    got = uniform_residues(SEED, Stream.GALOIS, 3, SPECIAL_INDEX | 1, q, 512)
    assert got.tolist() == by_the_book(SEED, 3, 3, SPECIAL_INDEX | 1, q, 512)


def test_streams_are_told_apart() -> None:
    q, seen = deep().base[0], set()
    other = bytes(31) + b"\x01"
    for args in ((SEED, 1, 0, 0), (SEED, 2, 0, 0), (SEED, 2, 1, 0), (SEED, 2, 0, 1), (other, 2, 0, 1)):
        seen.add(uniform_residues(*args, q, 64).tobytes())
    assert len(seen) == 5
    assert stream_id(0x8001, 2, 3).hex() == "8001000200000003"


def test_public_and_secret_stream_types_differ() -> None:
    public = {Stream.PUBLIC_KEY, Stream.RELINEARISATION, Stream.GALOIS, Stream.CIPHERTEXT}
    assert all((kind in public) == (kind < 0x8000) for kind in Stream)


def test_cutting_to_a_level_keeps_the_streams() -> None:
    p = deep()
    high, low = (
        uniform_polynomial(
            SEED,
            Stream.GALOIS,
            0,
            p.digit_plan(level).moduli,
            prime_indices(p, level, special=True),
            p.n,
        )
        for level in (4, 2)
    )
    assert np.array_equal(low, high[p.key_switch_context(2).key_limbs(len(high))])


def test_a_stream_is_read_in_pieces() -> None:
    whole = KeyStream(SEED, 1).words(10)
    stream = KeyStream(SEED, 1)
    pieces = np.concatenate([stream.words(3), stream.words(7)])
    assert np.array_equal(pieces, whole)
    assert whole.flags.writeable


def test_draws_are_uniform() -> None:
    q = 12289
    draws = uniform_residues(SEED, 1, 0, 0, q, 1 << 16)
    observed = np.bincount((draws // 1024).astype(int), minlength=13)[:12]
    expected = (1 << 16) * 1024 / q
    assert ((observed - expected) ** 2 / expected).sum() < 40
