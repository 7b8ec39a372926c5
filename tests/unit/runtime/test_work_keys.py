"""Work keys: announced, rotated by the clock, destroyed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lattice.core.clock import HOUR_MS, MINUTE_MS, ManualClock
from lattice.core.errors import LatticeError
from lattice.runtime.state import StateDir
from lattice.runtime.work_keys import WORK_KEYS_FILE, WorkKeys
from lattice.sealing.identity import IdentityKey
from lattice.sealing.key_config import KeyConfig, SignedKeyConfig, verify_key_config

RUNTIME = "lat_01m806efj0gzja7vzw6hq2gf8v"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path)


@pytest.fixture
def identity() -> IdentityKey:
    return IdentityKey.generate()


def configs(keys: WorkKeys, identity: IdentityKey) -> list[KeyConfig]:
    return [verify_key_config(SignedKeyConfig.decode(c), identity.public, RUNTIME) for c in keys.announcement]


def test_keys_survive_a_restart(state: StateDir, identity: IdentityKey, clock: ManualClock) -> None:
    first = WorkKeys(state, identity, RUNTIME, clock)
    again = WorkKeys(state, identity, RUNTIME, clock)
    assert again.announcement == first.announcement
    key_id = configs(first, identity)[0].key_id
    assert again.pair(key_id).to_bytes() == first.pair(key_id).to_bytes()
    assert "_Stored(" not in repr(again._entries)


def test_nothing_happens_until_the_overlap_begins(state: StateDir, identity: IdentityKey, clock: ManualClock) -> None:
    keys = WorkKeys(state, identity, RUNTIME, clock)
    clock.advance(23 * HOUR_MS - 1)
    assert not keys.rotate()
    clock.advance(1)
    assert keys.rotate()
    assert not keys.rotate()
    new, old = configs(keys, identity)
    assert new.not_before_ms > old.not_before_ms
    assert keys.pair(old.key_id)


def test_an_old_key_opens_for_an_hour_longer_and_is_then_destroyed(
    state: StateDir, identity: IdentityKey, clock: ManualClock
) -> None:
    keys = WorkKeys(state, identity, RUNTIME, clock)
    old = configs(keys, identity)[0]
    secret = keys.pair(old.key_id).to_bytes()
    clock.advance(24 * HOUR_MS + 1)
    keys.rotate()
    assert old.key_id not in [c.key_id for c in configs(keys, identity)]
    assert keys.pair(old.key_id)
    clock.advance(HOUR_MS)
    with pytest.raises(LatticeError) as caught:
        keys.pair(old.key_id)
    assert caught.value.code == "work_key_expired"
    keys.rotate()
    from lattice.core.ids import b64url

    assert b64url(secret).encode() not in (state.read_bytes(WORK_KEYS_FILE) or b"")


def test_a_machine_asleep_for_25_hours_makes_a_new_key(
    state: StateDir, identity: IdentityKey, clock: ManualClock
) -> None:
    keys = WorkKeys(state, identity, RUNTIME, clock)
    old = configs(keys, identity)[0].key_id
    clock.advance(25 * HOUR_MS)
    with pytest.raises(LatticeError, match="work_key_expired"):
        keys.pair(old)
    assert keys.rotate()
    assert [c.not_before_ms for c in configs(keys, identity)] == [clock.now_ms()]
    assert len(keys._entries) == 1


def test_a_clock_that_was_set_back_gets_a_key_that_senders_accept(state: StateDir, identity: IdentityKey) -> None:
    ahead = ManualClock(10_000_000_000_000)
    WorkKeys(state, identity, RUNTIME, ahead)
    right = ManualClock(10_000_000_000_000 - 30 * HOUR_MS)
    keys = WorkKeys(state, identity, RUNTIME, right)
    assert configs(keys, identity)[0].not_before_ms <= right.now_ms() + 5 * MINUTE_MS


def test_keys_of_another_runtime_or_identity_are_dropped(
    state: StateDir, identity: IdentityKey, clock: ManualClock
) -> None:
    WorkKeys(state, identity, RUNTIME, clock)
    other = WorkKeys(state, IdentityKey.generate(), RUNTIME, clock)
    assert len(other._entries) == 1
    moved = WorkKeys(state, identity, "lat_01m806efj0gzja7vzw6hq2gf8w", clock)
    assert len(moved._entries) == 1
