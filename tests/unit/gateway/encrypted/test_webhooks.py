"""Webhooks: signed, tried a bounded number of times, and never sent inside the network."""

from __future__ import annotations

import hmac
import socket

import aiohttp
import pytest

from lattice.core.clock import ManualClock
from lattice.core.errors import LatticeError
from lattice.gateway.encrypted.event_rows import add_event, due_events, events_after
from lattice.gateway.encrypted.model_rows import ModelRow, NewModel, create_model
from lattice.gateway.encrypted.secret_box import SecretBox
from lattice.gateway.encrypted.webhooks import WAITS_MS, PublicResolver, Webhooks, signature
from lattice.gateway.identity import Pepper, create_account
from lattice.gateway.store import Store


def test_a_signature_is_over_time_and_body() -> None:
    mac = hmac.digest(b"whs_x", b'12.{"a":1}', "sha256").hex()
    assert signature("whs_x", 12, b'{"a":1}') == f"t=12,v1={mac}"


def test_a_secret_opens_under_its_own_pepper_and_purpose_only(pepper: Pepper) -> None:
    sealed = SecretBox(pepper).seal("whs_secret", "webhook")
    assert b"whs_secret" not in sealed
    assert SecretBox(pepper).open(sealed, "webhook") == "whs_secret"
    for box, purpose in ((SecretBox(pepper), "other"), (SecretBox(Pepper(bytes(32))), "webhook")):
        with pytest.raises(LatticeError, match="config_invalid"):
            box.open(sealed, purpose)


async def test_a_delivery_is_tried_again_with_growing_pauses_and_then_given_up(store: Store, pepper: Pepper) -> None:
    clock = ManualClock()
    box = SecretBox(pepper)

    def set_up(conn: object) -> ModelRow:
        owner = create_account(conn, "x", clock.now_ms())  # type: ignore[arg-type]
        new = NewModel(
            account_id=owner.id,
            name="m",
            webhook_url="http://127.0.0.1:9/closed",
            webhook_secret=box.seal("s", "webhook"),
        )
        made = create_model(conn, new, clock.now_ms())  # type: ignore[arg-type]
        add_event(conn, owner.id, made.id, "version.ready", {}, clock.now_ms(), hooked=True)  # type: ignore[arg-type]
        return made

    model = await store.write(set_up)
    hooks = Webhooks(store, box, clock, allow_private=True)
    async with aiohttp.ClientSession() as http:
        for wait in (*WAITS_MS, 0):
            (row,) = await store.read(due_events, clock.now_ms())
            await hooks._deliver(http, row)
            assert await store.read(due_events, clock.now_ms()) == []
            clock.advance(wait)
    (row,) = await store.read(events_after, model.id, "")
    assert (row.attempts, row.next_attempt_ms, row.delivered_at_ms) == (len(WAITS_MS) + 1, None, None)


async def test_a_name_of_a_private_address_resolves_to_nothing() -> None:
    """A public name may point anywhere, and may change after it was checked."""
    with pytest.raises(OSError, match="no public address"):
        await PublicResolver().resolve("localhost", 443, socket.AF_INET)
