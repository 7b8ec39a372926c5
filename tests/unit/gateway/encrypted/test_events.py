"""The stream of events: what is stored, what happens meanwhile, and an end when the gateway ends."""

from __future__ import annotations

import asyncio

from lattice.gateway.encrypted.event_rows import EventRow, add_event
from lattice.gateway.encrypted.events import EventHub, as_event
from lattice.gateway.store import Store
from tests.support.ledger import NOW


async def test_stored_events_come_first_then_steps_and_new_ones(store: Store) -> None:
    async def add(kind: str, model: str = "mdl_one") -> EventRow:
        return await store.write(add_event, "acc_x", model, kind, {"version": 1}, NOW, hooked=False)

    hub = EventHub(store)
    old, _ = await add("version.uploaded"), await add("version.uploaded", "mdl_other")
    stream = hub.stream("mdl_one", "")
    assert await anext(stream) == as_event(old)
    coming = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.05)
    hub.step("mdl_other", {"stage": "none of ours"})
    hub.step("mdl_one", {"stage": "import", "part": 0.0})
    assert await coming == b'event: version.progress\ndata: {"stage":"import","part":0.0}\n\n'
    coming = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.05)
    new = await add("version.ready")
    hub.notify("mdl_one")
    async with asyncio.timeout(0.5):
        assert await coming == as_event(new)
    hub.close()
    assert await anext(stream, None) is None
    assert not hub._readers


async def test_a_reader_that_reads_nothing_costs_little(store: Store) -> None:
    hub = EventHub(store)
    stream = hub.stream("mdl_one", "")
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.05)
    for number in range(1000):
        hub.step("mdl_one", {"part": number})
    await waiting
    await stream.aclose()  # type: ignore[attr-defined]
    assert not hub._readers
