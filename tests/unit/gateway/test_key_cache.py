from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lattice.core.clock import ManualClock
from lattice.core.errors import LatticeError
from lattice.gateway.identity import (
    KeyCache,
    KeyRecord,
    NewKey,
    Pepper,
    create_account,
    create_key,
    get_key,
    revoke_key,
)
from lattice.gateway.identity import cache as cache_module
from lattice.gateway.store import Store
from tests.support.ledger import NOW


class Time:
    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Watched:
    """A store that counts reads and can be away."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reads = 0
        self.away = False

    async def read(self, *args: Any) -> Any:
        self.reads += 1
        if self.away:
            raise LatticeError("store_unavailable")
        return await self.store.read(*args)

    async def write(self, *args: Any) -> Any:
        return await self.store.write(*args)


class Setting:
    def __init__(self, store: Store, pepper: Pepper, record: KeyRecord, secret: str) -> None:
        self.store, self.record, self.secret = Watched(store), record, secret
        self.clock, self.time = ManualClock(NOW), Time()
        self.cache = KeyCache(self.store, pepper, self.clock, monotonic=self.time)  # type: ignore[arg-type]


@pytest.fixture
async def setting(store: Store, pepper: Pepper) -> Setting:
    owner = await store.write(create_account, "someone", NOW)
    new = NewKey(
        account_id=owner.id, name="app", scopes=frozenset({"lattice:compute:inference"}), expires_at_ms=NOW + 300_000
    )
    record, secret = await store.write(create_key, pepper, new, NOW)
    return Setting(store, pepper, record, secret)


async def test_a_hit_reads_nothing_and_concurrent_misses_read_once(setting: Setting) -> None:
    found = await asyncio.gather(*[setting.cache.authenticate(setting.secret) for _ in range(50)])
    assert set(map(id, found)) == {id(found[0])}
    assert found[0] == setting.record
    await setting.cache.authenticate(setting.secret)
    assert setting.store.reads == 1


async def test_a_revocation_elsewhere_works_within_a_second(setting: Setting) -> None:
    await setting.cache.authenticate(setting.secret)
    await setting.store.write(revoke_key, setting.record.account_id, setting.record.id, NOW)
    setting.time.seconds += 0.99
    await setting.cache.authenticate(setting.secret)
    setting.time.seconds += 0.01
    with pytest.raises(LatticeError, match="revoked_grant"):
        await setting.cache.authenticate(setting.secret)


async def test_a_revocation_here_works_at_once_even_against_a_read_under_way(setting: Setting) -> None:
    pending = asyncio.ensure_future(setting.cache.authenticate(setting.secret))
    await asyncio.sleep(0)
    await setting.store.write(revoke_key, setting.record.account_id, setting.record.id, NOW)
    setting.cache.clear()
    await asyncio.gather(pending, return_exceptions=True)
    with pytest.raises(LatticeError, match="revoked_grant"):
        await setting.cache.authenticate(setting.secret)


async def test_expiry_is_checked_on_a_hit_too(setting: Setting) -> None:
    await setting.cache.authenticate(setting.secret)
    setting.clock.advance(300_000)
    with pytest.raises(LatticeError, match="invalid_credential"):
        await setting.cache.authenticate(setting.secret)


async def test_an_unknown_key_is_remembered_as_such(setting: Setting) -> None:
    for _ in range(5):
        with pytest.raises(LatticeError, match="invalid_credential"):
            await setting.cache.authenticate("sk_lat_unknown")
    assert setting.store.reads == 1
    with pytest.raises(LatticeError, match="invalid_credential"):
        await setting.cache.authenticate("x" * 10_000)
    assert setting.store.reads == 1


async def test_an_outage_is_never_a_401_and_is_not_remembered(setting: Setting) -> None:
    setting.store.away = True
    results = await asyncio.gather(
        *[setting.cache.authenticate(setting.secret) for _ in range(3)], return_exceptions=True
    )
    assert [getattr(result, "code", None) for result in results] == ["store_unavailable"] * 3
    setting.store.away = False
    assert await setting.cache.authenticate(setting.secret) == setting.record


async def test_a_caller_that_leaves_takes_nobodys_answer_along(setting: Setting) -> None:
    first = asyncio.ensure_future(setting.cache.authenticate(setting.secret))
    second = asyncio.ensure_future(setting.cache.authenticate(setting.secret))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == setting.record
    assert setting.store.reads == 1


async def test_the_cache_is_bounded(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "MAX_KEYS", 3)
    for number in range(10):
        with pytest.raises(LatticeError):
            await setting.cache.authenticate(f"sk_lat_{number}")
    assert len(setting.cache._known) == 3


async def test_last_used_is_written_at_most_once_a_minute(setting: Setting) -> None:
    async def last_used() -> int | None:
        return (await setting.store.store.read(get_key, setting.record.account_id, setting.record.id)).last_used_at_ms

    await setting.cache.flush()
    assert await last_used() is None
    await setting.cache.authenticate(setting.secret)
    await setting.cache.flush()
    assert await last_used() == NOW
    setting.clock.advance(59_000)
    await setting.cache.authenticate(setting.secret)
    await setting.cache.flush()
    assert await last_used() == NOW
    setting.clock.advance(1_000)
    await setting.cache.flush()
    assert await last_used() == NOW + 59_000
