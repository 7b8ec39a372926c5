"""Secret keys at rest."""

from __future__ import annotations

import numpy as np
import pytest

from lattice.core.errors import LatticeError
from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.secret import SecretKey
from lattice.fhe.keys.store_format import (
    open_with_key,
    open_with_passphrase,
    seal_with_key,
    seal_with_passphrase,
)
from tests.support.fhe import tiny

WRAPPING = bytes(range(32))
CHEAP = 14


def test_a_passphrase_opens_what_it_sealed(secret: SecretKey) -> None:
    data = seal_with_passphrase(secret, "correct horse", log_cost=CHEAP)
    opened = open_with_passphrase(data, "correct horse")
    assert np.array_equal(opened.coefficients(), secret.coefficients())
    assert (opened.key_id, opened.params) == (secret.key_id, secret.params)
    assert data != seal_with_passphrase(secret, "correct horse", log_cost=CHEAP)


def test_a_key_from_the_keyring_opens_what_it_sealed(secret: SecretKey) -> None:
    opened = open_with_key(seal_with_key(secret, WRAPPING), WRAPPING)
    assert np.array_equal(opened.coefficients(), secret.coefficients())


def test_wrong_secrets_stay_locked(secret: SecretKey) -> None:
    data = seal_with_passphrase(secret, "correct horse", log_cost=CHEAP)
    with pytest.raises(LatticeError) as caught:
        open_with_passphrase(data, "battery staple")
    assert caught.value.code == "secret_locked"
    with pytest.raises(LatticeError) as caught:
        open_with_key(seal_with_key(secret, WRAPPING), bytes(32))
    assert caught.value.code == "secret_locked"
    with pytest.raises(LatticeError, match="32 bytes, not 5"):
        open_with_key(b"", b"short")
    with pytest.raises(LatticeError, match="empty passphrase"):
        seal_with_passphrase(secret, "")


def test_the_way_of_sealing_is_not_mixed_up(secret: SecretKey) -> None:
    with pytest.raises(LatticeError) as caught:
        open_with_key(seal_with_passphrase(secret, "x", log_cost=CHEAP), WRAPPING)
    assert caught.value.code == "blob_invalid"
    with pytest.raises(LatticeError) as caught:
        open_with_passphrase(seal_with_key(secret, WRAPPING), "x")
    assert caught.value.code == "blob_invalid"


@pytest.mark.parametrize("cost", [13, 19, 60])
def test_costs_are_bounded_both_ways(secret: SecretKey, cost: int) -> None:
    with pytest.raises(LatticeError, match="outside"):
        seal_with_passphrase(secret, "x", log_cost=cost)


def test_the_polynomial_is_not_in_the_bytes(secret: SecretKey) -> None:
    fields = (secret.coefficients().astype(int) + 1).reshape(-1, 4)
    packed = bytes((fields << np.arange(0, 8, 2)).sum(axis=1).astype(np.uint8))
    data = seal_with_key(secret, WRAPPING)
    assert packed[:16] not in data
    assert secret.coefficients().tobytes()[:32] not in data


def test_test_secrets_never_leave() -> None:
    with pytest.raises(LatticeError, match="never leave"):
        seal_with_key(KeyGenerator(tiny()).secret_key(), WRAPPING)
