"""One client for the tests of a module: making secrets is cheap, but not free."""

from __future__ import annotations

import pytest

from lattice.fhe.keys.evaluation import KeyGenerator
from lattice.fhe.keys.secret import SecretKey
from tests.support.fhe import deep


@pytest.fixture(scope="session")
def generator() -> KeyGenerator:
    """Keys for N = 8192."""
    return KeyGenerator(deep())


@pytest.fixture(scope="session")
def secret(generator: KeyGenerator) -> SecretKey:
    """A secret that no test wipes."""
    return generator.secret_key()
