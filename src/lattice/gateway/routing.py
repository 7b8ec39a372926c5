"""Chooses the runtime for a request. Policy first, then load; a personal runtime is never used for anybody else's work.

Pure: it looks at links and price rows that it is handed. What it cannot find it explains, a reason per candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lattice.core.errors import LatticeError
from lattice.core.models import CatalogueTarget, PersonalTarget
from lattice.core.relay import ModelOffer
from lattice.gateway.ledger import Price
from lattice.gateway.relay.link import Link
from lattice.sealing.header import Task


class Route(NamedTuple):
    """Where a request goes and what it costs there. `price` is None on one's own machine, where work is free."""

    link: Link
    offer: ModelOffer
    price: Price | None
    default_max_output_tokens: int


def route_personal(
    target: PersonalTarget, links: Mapping[str, Link], account_id: str, task: Task, now_ms: int
) -> Route | None:
    """The named machine, if it polls and is the caller's; None where the store has to say why not."""
    link = links.get(target.runtime_id)
    if link is None or link.kind != "personal" or link.account_id != account_id or not link.reachable(now_ms):
        return None
    offer = link.offer(target.local_model, task)
    if offer is None:
        wanted = "that model" if target.local_model else "a model"
        raise LatticeError("model_not_found", f"The machine does not offer {wanted} for {task}.")
    return Route(link, offer, None, offer.default_max_output_tokens)


def route_catalogue(
    target: CatalogueTarget, price: Price | None, links: Iterable[Link], task: Task, now_ms: int
) -> Route:
    """The least-loaded reachable hosted runtime that has the model."""
    if price is None:
        raise LatticeError("model_not_found", "The catalogue has no such model.")
    fitting: list[tuple[float, Link, ModelOffer]] = []
    reasons: list[dict[str, str]] = []
    for link in links:
        if link.kind != "hosted":
            continue
        offer = link.offer(target.canonical, task)
        if not link.reachable(now_ms):
            reasons.append({"runtime": link.runtime_id, "reason": "offline"})
        elif offer is None:
            reasons.append({"runtime": link.runtime_id, "reason": "does not offer this model for this task"})
        else:
            fitting.append((link.load, link, offer))
    if not fitting:
        raise LatticeError("no_runtime_meets_policy", details={"candidates": reasons})
    _, link, offer = min(fitting, key=lambda candidate: candidate[0])
    return Route(link, offer, price, price.default_max_output_tokens)
