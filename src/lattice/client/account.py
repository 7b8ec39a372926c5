"""Plans about the caller's own key, credits and ledger, and the lists that are read page by page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from lattice.client.context import Context
from lattice.client.exchange import Plan
from lattice.client.results import Page
from lattice.core.errors import LatticeError


def models(context: Context) -> Plan[list[dict[str, Any]]]:
    """The models that the key may use, in OpenAI's shape."""
    answer = yield from context.get_json("/models")
    data = answer.get("data")
    return data if isinstance(data, list) else []


def page(context: Context, path: str, cursor: str | None, limit: int, filters: Mapping[str, str | None]) -> Plan[Page]:
    """One page of a list. A cursor that does not move would loop for ever, so it is an error."""
    answer = yield from context.get_json(path, **filters, limit=limit, cursor=cursor)
    data, following = answer.get("data"), answer.get("next_cursor")
    if not isinstance(data, list) or (following is not None and following == cursor):
        raise LatticeError("gateway_unreachable", "The gateway answered with a malformed page.")
    return Page(data, following)


def create_key(context: Context, name: str, options: dict[str, Any]) -> Plan[dict[str, Any]]:
    """Make a developer key, once: a repeat under the same idempotency key gets the first answer."""
    body = {"name": name, **options}
    return (yield from context.post_json("/api-keys", body, idempotency_key=context.new_key(), replay_safe=True))


def create_account(context: Context, name: str) -> Plan[dict[str, Any]]:
    """Make an account, once."""
    key = context.new_key()
    return (yield from context.post_json("/accounts", {"name": name}, idempotency_key=key, replay_safe=True))


def grant_credits(
    context: Context, account: str, amount_micro: int, reason: str, idempotency_key: str | None
) -> Plan[dict[str, Any]]:
    """Grant credits; the key makes a repeat safe."""
    body = {"account": account, "amount_micro": amount_micro, "reason": reason}
    key = idempotency_key or context.new_key()
    return (yield from context.post_json("/credits/grants", body, idempotency_key=key, replay_safe=True))


def prices(context: Context) -> Plan[list[dict[str, Any]]]:
    """The catalogue of hosted models."""
    answer = yield from context.get_json("/prices")
    data = answer.get("data")
    return data if isinstance(data, list) else []


def set_price(context: Context, model: str, price: dict[str, Any]) -> Plan[dict[str, Any]]:
    """Add a catalogue model or change its price."""
    return (yield from context.put_json(f"/prices/{quote(model, safe='/')}", price))
