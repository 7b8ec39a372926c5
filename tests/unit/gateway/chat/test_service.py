"""How a work is ended: what is charged, what is voided, and under which attempt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from lattice.core.chat import Usage
from lattice.core.clock import ManualClock
from lattice.core.errors import LatticeError
from lattice.core.relay import ModelOffer
from lattice.gateway.chat.service import Ticket, WorkService, hold_micro
from lattice.gateway.identity.keys import KeyRecord
from lattice.gateway.ledger import Ending, Price, Settled, Settlement, settle, settle_partial, void
from lattice.gateway.metrics import Metrics
from lattice.gateway.relay.hub import Hub
from lattice.gateway.relay.link import Link
from lattice.gateway.relay.work import LiveWork
from lattice.gateway.routing import Route
from lattice.gateway.store.database import Store
from lattice.sealing.envelope import Envelope
from lattice.sealing.identity import IdentityKey

PRICE = Price("m", 1_000_000, 2_000_000, 10)


class Ledger:
    """Remembers what it was asked to write; `answers` decides what a void returns."""

    def __init__(self) -> None:
        self.written: list[tuple[Callable[..., Any], Any]] = []
        self.on_void: Callable[[Ending], bool] = lambda _: True
        self.error: LatticeError | None = None

    async def write(self, fn: Callable[..., Any], *args: Any) -> Any:
        """A write."""
        self.written.append((fn, args[0]))
        if self.error is not None:
            raise self.error
        return self.on_void(args[0]) if fn is void else Settled(args[0].cost_micro)


class Stage:
    """A service, and one admitted work."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        store = cast(Store, self.ledger)
        self.clock = ManualClock()
        self.metrics = Metrics()
        self.hub = Hub(store, self.clock, self.metrics, "gw")
        self.service = WorkService(store, self.hub, self.clock, self.metrics, 1_000)
        link = Link("lat_a", "acc_o", "hosted", IdentityKey.generate().public, 1)
        self.work = LiveWork("work_1", "lat_a", "acc_a", b"", 0)
        self.hub.links["lat_a"] = link
        self.hub.reserve(link, self.work)
        self.work.begin_attempt(1)
        route = Route(link, ModelOffer("m"), PRICE, 10)
        self.ticket = Ticket(self.work, route, cast(KeyRecord, None), cast(Envelope, None), input_bytes=41)

    async def abandon(self, code: str, delivered: int = 0) -> tuple[Callable[..., Any], Any]:
        """End it with an error; the one write that this made."""
        self.ticket.delivered_tokens = delivered
        await self.service.abandon(self.ticket, LatticeError(code))
        assert self.work.work_id not in self.hub.works
        return self.ledger.written[-1]

    def charged(self) -> float:
        return self.metrics.registry.get_sample_value("lattice_charged_micro_total") or 0


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.mark.parametrize(
    ("code", "state"),
    [
        ("work_cancelled", "cancelled"),
        ("personal_lattice_execution_timeout", "expired"),
        ("runtime_failed", "failed"),
        ("internal", "failed"),
    ],
)
async def test_what_delivered_nothing_is_voided(stage: Stage, code: str, state: str) -> None:
    fn, ending = await stage.abandon(code)
    assert fn is void
    assert (ending.work_id, ending.attempt, ending.state, ending.reason) == ("work_1", 1, state, code)
    assert stage.charged() == 0


async def test_what_was_delivered_is_charged_with_an_estimated_prompt(stage: Stage) -> None:
    """41 bytes are 11 tokens at most four bytes each; they were never counted by the model."""
    fn, settlement = await stage.abandon("work_cancelled", delivered=5)
    assert fn is settle_partial
    assert (settlement.prompt_tokens, settlement.completion_tokens) == (11, 5)
    assert settlement.cost_micro == 11 * 1 + 5 * 2
    assert stage.charged() == 21


@pytest.mark.parametrize("code", ["reply_invalid", "receipt_invalid"])
async def test_a_lie_is_never_charged(stage: Stage, code: str) -> None:
    fn, _ = await stage.abandon(code, delivered=5)
    assert fn is void


async def test_a_work_that_was_leased_anew_meanwhile_is_voided_under_its_new_attempt(stage: Stage) -> None:
    """The promotion of a queued work and its caller's disconnect cross in the writer: else the hold would stay until
    the reaper comes."""

    def lease_first(ending: Ending) -> bool:
        if ending.attempt == 1:
            stage.work.begin_attempt(2)
            return False
        return True

    stage.ledger.on_void = lease_first
    await stage.abandon("work_cancelled")
    assert [ending.attempt for _, ending in stage.ledger.written] == [1, 2]


async def test_a_work_that_has_ended_elsewhere_is_not_voided_for_ever(stage: Stage) -> None:
    """The reaper was first."""
    stage.ledger.on_void = lambda _: False
    await stage.abandon("runtime_failed")
    assert len(stage.ledger.written) == 1


async def test_a_store_that_fails_does_not_hide_the_caller_s_error(stage: Stage) -> None:
    """The slot comes free all the same; the next start voids the hold."""
    stage.ledger.error = LatticeError("store_unavailable")
    await stage.abandon("runtime_failed")
    assert stage.hub.links["lat_a"].load == 0


async def test_a_settlement_that_comes_too_late_frees_the_slot(stage: Stage) -> None:
    stage.ledger.error = LatticeError("lease_lost")
    with pytest.raises(LatticeError, match="lease_lost"):
        await stage.service.settle(stage.ticket, Usage(1, 1))
    assert stage.hub.links["lat_a"].load == 0
    assert stage.charged() == 0


async def test_an_answer_is_settled_at_its_usage(stage: Stage) -> None:
    assert await stage.service.settle(stage.ticket, Usage(10, 4), b"kept", 200) == 18
    ((fn, settlement),) = stage.ledger.written
    assert fn is settle
    assert isinstance(settlement, Settlement)
    assert (settlement.cost_micro, settlement.result, settlement.status) == (18, b"kept", 200)
    assert stage.charged() == 18


async def test_one_s_own_machine_costs_nothing(stage: Stage) -> None:
    stage.ticket.route = stage.ticket.route._replace(price=None)
    assert await stage.service.settle(stage.ticket, Usage(10**6, 10**6)) == 0
    assert hold_micro(None, 10**6, 10**6) == 0
