"""Key configs: who may issue them, for whom, for how long."""

from __future__ import annotations

import msgspec
import pytest

from lattice.core.errors import LatticeError
from lattice.sealing.identity import IdentityKey
from lattice.sealing.key_config import (
    DURABLE_LIFE_MS,
    INTERACTIVE_LIFE_MS,
    KEY_CONFIG_LABEL,
    OVERLAP_MS,
    KeyConfig,
    Purpose,
    SignedKeyConfig,
    issue_key_config,
    require_current,
    verify_key_config,
)
from lattice.sealing.suites import Suite, available_suites
from tests.unit.sealing.conftest import NOW, RUNTIME

IDENTITY = IdentityKey.generate()


def issue(purpose: Purpose = "interactive", suite: Suite = Suite.X25519) -> SignedKeyConfig:
    return issue_key_config(IDENTITY, RUNTIME, purpose, suite, NOW)[0]


def resigned(config: KeyConfig) -> SignedKeyConfig:
    data = msgspec.json.encode(config)
    return SignedKeyConfig(data, IDENTITY.sign(KEY_CONFIG_LABEL, data))


@pytest.mark.parametrize("suite", available_suites())
@pytest.mark.parametrize("purpose", ["interactive", "durable"])
def test_an_issued_config_verifies_and_names_its_pair(suite: Suite, purpose: Purpose) -> None:
    signed, pair = issue_key_config(IDENTITY, RUNTIME, purpose, suite, NOW)
    config = verify_key_config(SignedKeyConfig.decode(signed.encode()), IDENTITY.public, RUNTIME)
    assert (config.key_id, config.suite, config.purpose) == (pair.key_id, suite, purpose)


def test_lives_are_those_of_the_purpose() -> None:
    interactive = verify_key_config(issue(), IDENTITY.public, RUNTIME)
    durable = verify_key_config(issue("durable"), IDENTITY.public, RUNTIME)
    assert interactive.life_ms == INTERACTIVE_LIFE_MS == 24 * 3_600_000
    assert interactive.destroy_at_ms == NOW + INTERACTIVE_LIFE_MS + OVERLAP_MS
    assert durable.life_ms == DURABLE_LIFE_MS
    assert durable.destroy_at_ms == NOW + 2 * DURABLE_LIFE_MS


def test_another_identity_or_runtime_is_refused() -> None:
    with pytest.raises(LatticeError, match="envelope_invalid"):
        verify_key_config(issue(), IdentityKey.generate().public, RUNTIME)
    with pytest.raises(LatticeError, match="another runtime"):
        verify_key_config(issue(), IDENTITY.public, "lat_other")


def test_a_config_can_not_outlive_its_purpose_nor_end_before_it_begins() -> None:
    config = verify_key_config(issue(), IDENTITY.public, RUNTIME)
    for not_after in (config.not_after_ms + 1, config.not_before_ms, 0):
        longer = msgspec.structs.replace(config, not_after_ms=not_after)
        with pytest.raises(LatticeError, match="lives longer"):
            verify_key_config(resigned(longer), IDENTITY.public, RUNTIME)


@pytest.mark.parametrize("member", ["key_id", "public_key"])
def test_the_key_id_must_be_that_of_the_public_key(member: str) -> None:
    config = verify_key_config(issue(), IDENTITY.public, RUNTIME)
    other = verify_key_config(issue(), IDENTITY.public, RUNTIME)
    mixed = msgspec.structs.replace(config, **{member: getattr(other, member)})
    with pytest.raises(LatticeError, match="does not fit"):
        verify_key_config(resigned(mixed), IDENTITY.public, RUNTIME)


def test_a_public_key_that_is_not_base64url_is_refused() -> None:
    config = verify_key_config(issue(), IDENTITY.public, RUNTIME)
    with pytest.raises(LatticeError, match="does not fit"):
        verify_key_config(resigned(msgspec.structs.replace(config, public_key="=")), IDENTITY.public, RUNTIME)


@pytest.mark.parametrize(
    ("offset", "current"),
    [
        (0, True),
        (-300_000, True),
        (-300_001, False),
        (INTERACTIVE_LIFE_MS - 1, True),
        (INTERACTIVE_LIFE_MS, False),
        (INTERACTIVE_LIFE_MS + OVERLAP_MS - 1, False),
    ],
)
def test_senders_use_a_config_in_its_life_only(offset: int, current: bool) -> None:
    config = verify_key_config(issue(), IDENTITY.public, RUNTIME)
    if current:
        require_current(config, NOW + offset)
    else:
        with pytest.raises(LatticeError) as caught:
            require_current(config, NOW + offset)
        assert caught.value.code == "work_key_expired"


def test_a_fixed_seed_gives_a_fixed_pair() -> None:
    one, two = (issue_key_config(IDENTITY, RUNTIME, "interactive", Suite.X25519, NOW, seed=bytes(32)) for _ in "ab")
    assert one[0] == two[0]
    assert one[1].to_bytes() == two[1].to_bytes()
