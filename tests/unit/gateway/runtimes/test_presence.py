"""Presence: from a poll to a link, and which key configuration callers are told to seal to."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from lattice.core.clock import HOUR_MS, ManualClock
from lattice.core.errors import LatticeError
from lattice.core.relay import Announcement, ModelOffer
from lattice.gateway.metrics import Metrics
from lattice.gateway.relay.hub import Hub
from lattice.gateway.runtimes.presence import Presence, newest_interactive
from lattice.gateway.runtimes.rows import RuntimeRow
from lattice.gateway.runtimes.view import runtime_state
from lattice.gateway.store.database import Store
from lattice.sealing.identity import IdentityKey
from lattice.sealing.key_config import issue_key_config
from lattice.sealing.suites import Suite

RUNTIME = "lat_" + "0" * 26


class Slow:
    """A store whose writes take a turn of the loop each, and more while `paused`."""

    def __init__(self) -> None:
        self.paused = asyncio.Event()
        self.paused.set()
        self.written: list[str] = []

    async def write(self, fn: Any, *_: Any) -> None:
        await asyncio.sleep(0)
        await self.paused.wait()
        self.written.append(fn.__name__)


class Stage:
    """Presence over a hub."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = Slow()
        store = cast(Store, self.store)
        self.hub = Hub(store, self.clock, Metrics(), "gw")
        self.presence = Presence(self.hub, store, self.clock, max_queue=1)
        self.identity = IdentityKey.generate()

    def row(self, identity: IdentityKey | None = None, **changes: Any) -> RuntimeRow:
        fields: dict[str, Any] = {
            "id": RUNTIME,
            "account_id": "acc_a",
            "kind": "personal",
            "name": "n",
            "identity_key": (identity or self.identity).public.raw,
            "key_configs": None,
            "announcement": None,
            "pairing": None,
            "verified": False,
            "last_seen_ms": None,
            "revoked_at_ms": None,
            "created_at_ms": 0,
        }
        return RuntimeRow(**{**fields, **changes})

    def config(self, age_ms: int = 0, purpose: str = "interactive", identity: IdentityKey | None = None) -> bytes:
        now = self.clock.now_ms() - age_ms
        signer = identity or self.identity
        return issue_key_config(signer, RUNTIME, purpose, Suite.X25519, now)[0].encode()  # type: ignore[arg-type]

    def said(self, *configs: bytes) -> Announcement:
        return Announcement(configs or (self.config(),), (ModelOffer("m"),), 3)


@pytest.fixture
async def stage() -> Stage:
    return Stage()


async def test_the_first_poll_announces(stage: Stage) -> None:
    link = await stage.presence.link(stage.row(), stage.said())
    assert (link.concurrency, [model.id for model in link.models]) == (3, ["m"])
    assert stage.hub.links == {RUNTIME: link}
    assert stage.store.written == ["save_announcement", "touch_seen"]


async def test_a_later_poll_need_not(stage: Stage) -> None:
    first = await stage.presence.link(stage.row(), stage.said())
    assert await stage.presence.link(stage.row(), None) is first
    assert stage.store.written == ["save_announcement", "touch_seen"]  # and it is not written down each time


async def test_a_first_poll_that_announces_nothing_is_sent_back(stage: Stage) -> None:
    with pytest.raises(LatticeError, match="lease_lost"):
        await stage.presence.link(stage.row(), None)
    assert stage.hub.links == {}


async def test_an_unpaired_record_cannot_poll(stage: Stage) -> None:
    with pytest.raises(LatticeError, match="invalid_credential"):
        await stage.presence.link(stage.row(identity_key=None), stage.said())


async def test_two_first_polls_at_once_share_a_link(stage: Stage) -> None:
    """Else work admitted on one link would never reach the poll that waits on the other."""
    links = await asyncio.gather(*(stage.presence.link(stage.row(), stage.said()) for _ in range(2)))
    assert links[0] is links[1] is stage.hub.links[RUNTIME]


async def test_a_machine_revoked_while_it_announces_does_not_come_back(stage: Stage) -> None:
    stage.store.paused.clear()
    polling = asyncio.create_task(stage.presence.link(stage.row(), stage.said()))
    await asyncio.sleep(0.01)
    stage.hub.drop(RUNTIME)
    stage.store.paused.set()
    with pytest.raises(LatticeError, match="lease_lost"):
        await polling
    assert stage.hub.links == {}


async def test_another_identity_gets_another_link(stage: Stage) -> None:
    """Nothing of the replaced machine goes on, its queue least of all."""
    old = await stage.presence.link(stage.row(), stage.said())
    other = IdentityKey.generate()
    new = await stage.presence.link(stage.row(other), stage.said(stage.config(identity=other)))
    assert new is not old
    assert new.identity == other.public
    assert not old.reachable(stage.clock.now_ms())


def test_the_newest_interactive_config_is_used(stage: Stage) -> None:
    old, new, durable = stage.config(HOUR_MS), stage.config(), stage.config(purpose="durable")
    for order in ((old, new, durable), (durable, new, old)):
        config, encoded = newest_interactive(order, stage.identity.public, RUNTIME)
        assert encoded == new
        assert config is not None
    assert newest_interactive([durable], stage.identity.public, RUNTIME) == (None, b"")


def test_every_config_has_to_verify(stage: Stage) -> None:
    """One forged among genuine ones is no accident."""
    with pytest.raises(LatticeError, match="envelope_invalid"):
        newest_interactive(
            [stage.config(), stage.config(identity=IdentityKey.generate())], stage.identity.public, RUNTIME
        )


async def test_states(stage: Stage) -> None:
    now = stage.clock.now_ms()
    assert runtime_state(stage.row(identity_key=None), None, now) == "unpaired"
    assert runtime_state(stage.row(), None, now) == "offline"
    assert runtime_state(stage.row(last_seen_ms=now - 1_000), None, now) == "reachable"  # another gateway has its poll
    assert runtime_state(stage.row(revoked_at_ms=1, last_seen_ms=now), None, now) == "revoked"
    link = await stage.presence.link(stage.row(), stage.said())
    assert runtime_state(stage.row(last_seen_ms=now), link, now) == "offline"  # our own link knows better
