"""Distributions: chi-square tests with a false alarm about once in a million runs, on fixed seeds besides."""

from __future__ import annotations

from math import comb, sqrt

import numpy as np
import pytest

from lattice.fhe.ckks.seeds import KeyStream, Stream
from lattice.fhe.keys.sampling import (
    SecretSource,
    binomial_of,
    centred_binomial,
    fresh_seed,
    rounded_gaussian,
    ternary,
    ternary_of,
    wipe,
)

SEED = bytes(range(32))
N = 1 << 16


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    return float(((observed - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("seed", [SEED, None])
def test_secrets_are_uniformly_ternary(seed: bytes | None) -> None:
    draws = ternary(KeyStream(seed or fresh_seed(), Stream.SECRET), N)
    counts = np.bincount(draws + 1, minlength=3)
    assert counts.sum() == N
    assert len(counts) == 3
    assert chi_square(counts, np.full(3, N / 3)) < 30


@pytest.mark.parametrize("seed", [SEED, None])
def test_errors_are_centred_binomial(seed: bytes | None) -> None:
    draws = centred_binomial(KeyStream(seed or fresh_seed(), Stream.ERROR), N, 21)
    probabilities = np.array([comb(42, 21 + k) for k in range(-21, 22)]) / 2**42
    counts = np.bincount(draws + 21, minlength=43)
    middle = slice(21 - 11, 21 + 12)
    assert np.abs(draws).max() <= 21
    assert chi_square(counts[middle], N * probabilities[middle]) < 75
    assert abs(draws.mean()) < 5 * sqrt(10.5 / N)
    assert abs(draws.var() - 10.5) < 0.4


def test_the_order_of_bits_is_the_specified_one() -> None:
    words = KeyStream(SEED, Stream.ERROR, 7).words(50)
    expected = [(int(w) & 0x1FFFFF).bit_count() - (int(w) >> 21 & 0x1FFFFF).bit_count() for w in words]
    assert centred_binomial(KeyStream(SEED, Stream.ERROR, 7), 50, 21).tolist() == expected
    fields = [int(w) >> shift & 3 for w in KeyStream(SEED, Stream.SECRET).words(40) for shift in range(0, 64, 2)]
    accepted = [f - 1 for f in fields if f < 3]
    assert ternary(KeyStream(SEED, Stream.SECRET), 500).tolist() == accepted[:500]


def test_a_long_ternary_stream_has_no_seam() -> None:
    whole = ternary(KeyStream(SEED, Stream.SECRET), 5000)
    assert np.array_equal(whole[:777], ternary(KeyStream(SEED, Stream.SECRET), 777))


@pytest.mark.parametrize("sigma", [3.0, 2.0**40])
def test_flooding_is_normal(sigma: float) -> None:
    draws = rounded_gaussian(KeyStream(SEED, Stream.FLOOD), N, sigma) / sigma
    assert abs(draws.mean()) < 5 / sqrt(N)
    assert abs(draws.std() - 1) < 0.02
    inside = [(np.abs(draws) < k).mean() for k in (1, 2, 3)]
    tolerance = 0.01 if sigma > 100 else 0.1
    assert np.allclose(inside, [0.6827, 0.9545, 0.9973], atol=tolerance)


def test_wide_flooding_has_low_bits_too() -> None:
    high, low = SecretSource().gaussian(4096, 2.0**60)
    assert not (high % 2.0**15).any()
    assert len(np.unique(low)) > 3000
    assert low.min() >= 0
    assert 2**15 < low.max() < 2**17
    assert 0.9 < (high.std() / 2.0**60) < 1.1
    assert not SecretSource().gaussian(64, 2.0**30)[1].any()


def test_every_source_has_its_own_randomness() -> None:
    assert not np.array_equal(SecretSource().ternary(64), SecretSource().ternary(64))
    source = SecretSource()
    assert not np.array_equal(source.error(64, 0), source.error(64, 1))
    assert not np.array_equal(source.ternary(64), source.ternary(64, Stream.EPHEMERAL))


@pytest.mark.parametrize("n", [16, 1024, N])
def test_a_source_gives_enough_for_a_secret(n: int) -> None:
    """Never more than a fifth over what the average draw needs, never too little."""
    words = SecretSource().ternary(n).view(np.uint64)
    assert len(ternary_of(words, n)) == n
    assert len(words) < n / 24 * 1.2 + 65


def test_the_bytes_are_the_streams() -> None:
    """What native code is handed is what the definition reads."""
    source = SecretSource()
    words = source.error(500, 3).view(np.uint64)
    seed = source._seed.tobytes()
    assert np.array_equal(binomial_of(words, 21), centred_binomial(KeyStream(seed, Stream.ERROR, 3), 500, 21))
    fields = ternary_of(source.ternary(500).view(np.uint64), 500)
    assert np.array_equal(fields, ternary(KeyStream(seed, Stream.SECRET), 500))


def test_a_source_forgets_its_seed() -> None:
    with SecretSource() as source:
        seed = source._seed
        assert seed.any()
        assert repr(source) == "SecretSource()"
    assert not seed.any()


def test_wiping_reaches_through_views() -> None:
    buffer = np.ones(8, dtype=np.uint64)
    wipe(buffer[2:4])
    assert buffer.tolist() == [1, 1, 0, 0, 1, 1, 1, 1]
