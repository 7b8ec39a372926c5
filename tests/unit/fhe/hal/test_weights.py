"""Encoded weights: repeating plaintexts are what the full ones are, lists are what single plaintexts are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.ckks.ciphertext import Plaintext
from lattice.fhe.ckks.encoder import Encoder
from lattice.fhe.hal.weights import Diagonals, PeriodicWeights, encode_diagonals, encode_periodic, repeated
from tests.support.encrypted import noise, same_bits, tiny_client, tiny_parameters


@pytest.mark.parametrize("period", [1, 2, 4, 8, 16, 32])
def test_repeating_weights_are_plaintexts_that_repeat(period: int) -> None:
    """N evaluations are runs of 2·period distinct ones: what the repeated slots encode to, bit for bit where the two
    transforms round alike, and the same values in any case."""
    params = tiny_parameters()
    encoder = Encoder(params)
    values = noise(6 * period).reshape(3, 2, period)
    short = encode_periodic(encoder, values, level=3, scale=params.scale)
    assert short.period == period
    assert short.residues.shape == (3, 2, 4, 2 * period if period > 1 else 1)
    full = repeated(short.residues, params.n)
    for a in range(3):
        for i in range(2):
            tiled = np.tile(values[a, i], params.slots // period)
            got = encoder.decode_poly(full[a, i], 3, params.scale)
            assert np.abs(got - tiled).max() < 2.0**-30
            distinct = encoder.encode(tiled, level=3).poly.reshape(4, max(2 * period, 2), -1)
            assert (distinct == distinct[..., :1]).all() or period == 1


def test_powers_of_two_repeat_to_the_same_bits() -> None:
    """Where nothing is rounded the short transform and the long one agree exactly."""
    params = tiny_parameters()
    encoder = Encoder(params)
    values = np.array([[[1.0, 1.0, 1.0, 1.0]], [[-0.5, -0.5, -0.5, -0.5]]])
    full = repeated(encode_periodic(encoder, values, level=2, scale=params.scale).residues, params.n)
    for a in range(2):
        assert np.array_equal(full[a, 0], encoder.encode(values[a, 0, 0], level=2).poly)


@pytest.mark.parametrize("extended", [False, True])
def test_lists_are_plaintexts(extended: bool) -> None:
    params = tiny_parameters()
    encoder = Encoder(params)
    values = noise(130 * 32).reshape(130, 32)
    many = encode_diagonals(encoder, values, level=2, scale=params.scale, extended=extended)
    many.check(params)
    for d in (0, 63, 64, 129):
        assert np.array_equal(many.polys[d, :3], encoder.encode(values[d], level=2).poly)


def test_sums_with_few_distinct_numbers_are_sums() -> None:
    client = tiny_client()
    e, params = client.evaluator(), client.params
    xs = [client.encrypt(noise(32, seed), level=2) for seed in (1, 2)]
    weights = encode_periodic(e.encoder, noise(16).reshape(2, 2, 4), level=2, scale=params.scale)
    outs = e._on.sum_periodic(xs, weights)
    for out, row in zip(outs, repeated(weights.residues, params.n), strict=True):
        a, b = (e.multiply_plain(x, Plaintext(params.id, 2, params.scale, w)) for x, w in zip(xs, row, strict=True))
        assert same_bits(out, e.add(a, b))


BAD: list[Any] = [
    lambda p: Diagonals("par_other", 2, p.scale, np.zeros((1, 3, 64), dtype=np.uint64), extended=False),
    lambda p: Diagonals(p.id, 2, p.scale, np.zeros((1, 3, 64), dtype=np.uint64)),
    lambda p: Diagonals(p.id, 2, p.scale, np.zeros((3, 64), dtype=np.uint64), extended=False),
    lambda p: PeriodicWeights("par_other", 2, p.scale, np.zeros((1, 1, 3, 4), dtype=np.uint64)),
    lambda p: PeriodicWeights(p.id, 2, p.scale, np.zeros((1, 1, 2, 4), dtype=np.uint64)),
    lambda p: PeriodicWeights(p.id, 2, p.scale, np.zeros((1, 1, 3, 3), dtype=np.uint64)),
    lambda p: PeriodicWeights(p.id, 2, p.scale, np.zeros((1, 1, 3, 0), dtype=np.uint64)),
    lambda p: PeriodicWeights(p.id, 2, p.scale, np.zeros((1, 1, 3, 128), dtype=np.uint64)),
    lambda p: PeriodicWeights(p.id, 2, p.scale, np.zeros((1, 0, 3, 4), dtype=np.uint64)),
    lambda p: PeriodicWeights(p.id, 2, p.scale, np.zeros((3, 4), dtype=np.uint64)),
]


@pytest.mark.parametrize("make", BAD)
def test_weights_of_another_form_are_refused(make: Any) -> None:
    params = tiny_parameters()
    with pytest.raises(LatticeError) as caught:
        make(params).check(params)
    assert caught.value.code == "parameters_mismatch"


@pytest.mark.parametrize("shape", [(2, 2, 3), (2, 2, 64), (2, 2), (2, 2, 0)])
def test_periods_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    params = tiny_parameters()
    with pytest.raises(LatticeError, match="values_unencodable"):
        encode_periodic(Encoder(params), np.zeros(shape), level=1, scale=params.scale)
    with pytest.raises(LatticeError, match="period 1"):
        encode_periodic(Encoder(params), np.full((1, 1, 1), 1j), level=1, scale=params.scale)
