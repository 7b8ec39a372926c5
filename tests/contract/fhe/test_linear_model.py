"""The native calls for linear models give the bits of the definitions on every instruction set, and check shapes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from lattice.fhe.ckks.presets import preset
from lattice.fhe.ckks.seeds import Stream, uniform_residues
from lattice.fhe.hal import available_backends, backend
from lattice.fhe.ring import modulus
from lattice.fhe.ring.modulus import Residues

pytestmark = pytest.mark.skipif("native" not in available_backends(), reason="the native module is not built")
N, PRIMES = 2048, (preset("linear-2048").base[0], preset("mlp-8192").levels[0][0])
RNG = np.random.default_rng(3)


@pytest.fixture(params=["scalar", "avx2", "avx512ifma"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    native = backend("native")
    if request.param not in native.available_isas():  # type: ignore[attr-defined]
        pytest.skip(f"this machine does not run {request.param}")
    before = native.isa()  # type: ignore[attr-defined]
    native.set_isa(request.param)  # type: ignore[attr-defined]
    yield request.param
    native.set_isa(before)  # type: ignore[attr-defined]


def residues(*shape: int) -> Residues:
    return np.stack([RNG.integers(0, q, (*shape[:-2], shape[-1]), dtype=np.uint64) for q in PRIMES], axis=-2)


@pytest.mark.parametrize(("outs", "inputs", "values"), [(1, 1, N), (3, 2, N), (2, 5, 1), (1, 4, 8), (1, 1, 32)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_sums_of_seeded_ciphertexts(isa: str, outs: int, inputs: int, values: int, with_bias: bool) -> None:
    from lattice.fhe import _native

    halves = [residues(2, N) for _ in range(inputs)]
    seeds = [RNG.bytes(32) for _ in range(inputs)]
    weights = np.ascontiguousarray(residues(outs, inputs, 2, values))
    bias = np.ascontiguousarray(residues(outs, 2, N)) if with_bias else None
    found = _native.sum_seeded(halves, seeds, Stream.CIPHERTEXT, weights, bias, PRIMES)
    for out in range(outs):
        wanted = np.zeros((2, 2, N), dtype=np.uint64)
        if bias is not None:
            wanted[0] = bias[out]
        for i in range(inputs):
            c1 = np.stack([uniform_residues(seeds[i], Stream.CIPHERTEXT, 0, k, q, N) for k, q in enumerate(PRIMES)])
            full = np.repeat(weights[out, i], N // values, axis=-1)
            wanted = modulus.mul_add(wanted, np.stack([halves[i], c1]), np.stack([full, full]), PRIMES)
        assert (found[out] == wanted).all()


def test_shapes_are_checked() -> None:
    from lattice.fhe import _native

    half, weights = residues(2, N), np.ascontiguousarray(residues(1, 1, 2, N))
    good = ([half], [bytes(32)], 4, weights, None, PRIMES)
    _native.sum_seeded(*good)
    bad = [
        ([half, half], *good[1:]),
        ([half[:, :64].copy()], *good[1:]),
        ([half], [bytes(31)], *good[2:]),
        (*good[:2], Stream.SECRET, *good[3:]),
        (*good[:3], weights[:, :, :, :48].copy(), None, PRIMES),
        (*good[:4], half[:1].copy(), PRIMES),
        (*good[:5], PRIMES[:1]),
    ]
    for arguments in bad:
        with pytest.raises(ValueError):
            _native.sum_seeded(*arguments)
    a, noise, kept = _native.UniformPolynomial(half), np.zeros(8 * N, np.uint8), np.zeros(N, np.uint8)
    result = np.stack([half, half])
    fine = (result, half, a, noise, noise, noise, 21, 11, kept, PRIMES)
    _native.blind_coefficients(*fine)
    for place, wrong in (
        (0, half),
        (1, half[:1].copy()),
        (3, noise[:64]),
        (4, noise[:64]),
        (5, noise[:64]),
        (7, 40),
        (8, kept[:5]),
    ):
        with pytest.raises(ValueError):
            _native.blind_coefficients(*fine[:place], wrong, *fine[place + 1 :])
