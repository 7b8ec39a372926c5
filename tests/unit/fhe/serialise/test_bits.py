"""Packing against a big-integer reference."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lattice.core.errors import LatticeError
from lattice.fhe.ring.primes import find_primes
from lattice.fhe.serialise.bits import field_bits, pack, packed_bytes, unpack
from tests.support.fhe import deep, random_residues


@pytest.mark.parametrize("bits", [*range(12, 51), 1, 2])
def test_fields_lie_where_the_layout_says(bits: int) -> None:
    q, n = 1 << bits, 128
    x = random_residues(np.random.default_rng(bits), [q], n)
    x[0, 0], x[0, -1] = q - 1, q - 1
    whole = sum(int(v) << (i * bits) for i, v in enumerate(x[0]))
    data = pack(x, [q])
    assert data == whole.to_bytes(n * bits // 8, "little")
    assert np.array_equal(unpack(data, [q], n), x)


@pytest.mark.parametrize("level", range(5))
def test_whole_polynomials_come_back(level: int) -> None:
    moduli = deep().q_moduli(level) + deep().special
    x = random_residues(np.random.default_rng(level), moduli, deep().n)
    data = pack(x, moduli)
    assert len(data) == packed_bytes(moduli, deep().n) == sum(deep().n * field_bits(q) // 8 for q in moduli)
    assert np.array_equal(unpack(data, moduli, deep().n), x)


def test_many_limbs_of_one_width_are_packed_in_runs() -> None:
    moduli = find_primes(30, 1024, 19)
    x = random_residues(np.random.default_rng(0), moduli, 1024)
    assert pack(x, moduli) == b"".join(pack(x[k : k + 1], [q]) for k, q in enumerate(moduli))
    assert np.array_equal(unpack(pack(x, moduli), moduli, 1024), x)


def test_a_residue_out_of_range_is_refused() -> None:
    (q,) = find_primes(20, 1024, 1)
    x = np.zeros((1, 1024), dtype=np.uint64)
    x[0, 700] = q
    with pytest.raises(LatticeError, match="not below its prime") as caught:
        unpack(pack(x, [q]), [q], 1024)
    assert caught.value.code == "blob_invalid"


@given(st.binary(max_size=4000))
def test_any_bytes_are_residues_or_refused(data: bytes) -> None:
    moduli = find_primes(20, 1024, 1)
    with suppress(LatticeError):
        assert pack(unpack(data, moduli, 1024), moduli) == data
