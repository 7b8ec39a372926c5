"""Routing: one's own machine by name, the catalogue by load, and a reason for everything that does not fit."""

from __future__ import annotations

import pytest

from lattice.core.errors import LatticeError
from lattice.core.models import CatalogueTarget, PersonalTarget
from lattice.core.relay import PROTOCOL_VERSION, Announcement, ModelOffer, PollRequest
from lattice.gateway.ledger import Price
from lattice.gateway.relay.link import Link
from lattice.gateway.relay.work import LiveWork
from lattice.gateway.routing import route_catalogue, route_personal
from lattice.sealing.identity import IdentityKey

NOW = 1_000_000
PRICE = Price("m", 1, 1, default_max_output_tokens=99)
MINE, CATALOGUE = PersonalTarget("lat_a", None), CatalogueTarget("m")


def link(
    name: str = "lat_a", kind: str = "personal", account: str = "acc_a", concurrency: int = 1, *models: ModelOffer
) -> Link:
    """A link whose daemon polls."""
    made = Link(name, account, kind, IdentityKey.generate().public, 10)
    made.announce(Announcement((), models or (ModelOffer("m"),), concurrency), None, b"")
    made.open_poll(PollRequest(PROTOCOL_VERSION, "s", "i"), NOW)
    return made


def busy(made: Link, works: int) -> Link:
    for number in range(works):
        made.admit(LiveWork(f"work_{made.runtime_id}_{number}", made.runtime_id, "acc", b"", NOW + 1), NOW)
    return made


def test_one_s_own_machine_is_free_and_has_its_own_default() -> None:
    mine = link("lat_a", "personal", "acc_a", 1, ModelOffer("a", default_max_output_tokens=7), ModelOffer("b"))
    route = route_personal(MINE, {"lat_a": mine}, "acc_a", "chat", NOW)
    assert route is not None
    assert (route.link, route.offer.id, route.price, route.default_max_output_tokens) == (mine, "a", None, 7)


def test_a_local_model_can_be_named() -> None:
    mine = link("lat_a", "personal", "acc_a", 1, ModelOffer("a"), ModelOffer("b"))
    route = route_personal(PersonalTarget("lat_a", "b"), {"lat_a": mine}, "acc_a", "chat", NOW)
    assert route is not None
    assert route.offer.id == "b"


@pytest.mark.parametrize(
    "made",
    [
        link(kind="hosted"),
        link(account="acc_b"),
        link("lat_b"),
    ],
    ids=["hosted", "another account's", "another machine"],
)
def test_what_is_not_the_caller_s_own_is_left_to_the_store_to_explain(made: Link) -> None:
    assert route_personal(MINE, {made.runtime_id: made}, "acc_a", "chat", NOW) is None


def test_an_unreachable_machine_is_never_replaced_by_another() -> None:
    gone, other = link(), link("lat_b")
    assert route_personal(MINE, {"lat_a": gone, "lat_b": other}, "acc_a", "chat", NOW + 10**9) is None


@pytest.mark.parametrize(("local", "task"), [("unknown", "chat"), (None, "embeddings"), ("m", "embeddings")])
def test_a_model_that_the_machine_lacks(local: str | None, task: str) -> None:
    with pytest.raises(LatticeError, match="model_not_found") as refused:
        route_personal(PersonalTarget("lat_a", local), {"lat_a": link()}, "acc_a", task, NOW)  # type: ignore[arg-type]
    assert "unknown" not in refused.value.message


def test_the_least_loaded_machine_by_slots() -> None:
    """Two works on four slots are less than one on one."""
    small = busy(link("lat_s", "hosted", "acc_o", 1), 1)
    large = busy(link("lat_l", "hosted", "acc_o", 4), 2)
    route = route_catalogue(CATALOGUE, PRICE, [small, large], "chat", NOW)
    assert (route.link, route.price, route.default_max_output_tokens) == (large, PRICE, 99)


def test_personal_machines_are_not_candidates() -> None:
    with pytest.raises(LatticeError) as refused:
        route_catalogue(CATALOGUE, PRICE, [link()], "chat", NOW)
    assert (refused.value.code, refused.value.details) == ("no_runtime_meets_policy", {"candidates": []})


def test_each_candidate_has_its_reason() -> None:
    gone, other = link("lat_g", "hosted"), link("lat_o", "hosted", "acc", 1, ModelOffer("x"))
    gone.close()
    with pytest.raises(LatticeError) as refused:
        route_catalogue(CATALOGUE, PRICE, [gone, other], "chat", NOW)
    assert refused.value.details["candidates"] == [
        {"runtime": "lat_g", "reason": "offline"},
        {"runtime": "lat_o", "reason": "does not offer this model for this task"},
    ]


def test_what_has_no_price_is_not_in_the_catalogue() -> None:
    with pytest.raises(LatticeError, match="model_not_found"):
        route_catalogue(CATALOGUE, None, [link("lat_h", "hosted")], "chat", NOW)
