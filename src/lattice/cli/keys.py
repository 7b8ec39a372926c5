"""`lattice keys`: developer keys."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lattice.cli.common import DEFAULT, Common, cell, when
from lattice.cli.output import show, table

if TYPE_CHECKING:
    from rich.console import Console

_DAY_MS = 86_400_000


def create(
    name: str,
    /,
    *,
    scope: Annotated[list[str] | None, Parameter(negative=())] = None,
    model: Annotated[list[str] | None, Parameter(negative=())] = None,
    spend_cap: str | None = None,
    requests_per_minute: int | None = None,
    days: float | None = None,
    common: Common = DEFAULT,
) -> None:
    """Make a key and show its secret, once. It can do at most what the key that makes it can.

    Parameters
    ----------
    name
        What to call it.
    scope
        A scope; repeat the option for several. Those of an ordinary app otherwise.
    model
        A model that it may use; repeat the option for several. All models otherwise.
    spend_cap
        The most credits that it may spend, such as 2.5.
    requests_per_minute
        How many requests a minute it may send.
    days
        In how many days it expires.
    """
    from lattice.cli.amounts import micro_credits

    with common.client() as client:
        wanted: dict[str, Any] = {
            "scopes": scope,
            "allowed_models": model,
            "spend_cap_micro": None if spend_cap is None else micro_credits(spend_cap),
            "requests_per_minute": requests_per_minute,
            "expires_at_ms": None if days is None else time.time_ns() // 1_000_000 + int(days * _DAY_MS),
        }
        made = client.create_key(name, **{name_: value for name_, value in wanted.items() if value is not None})

        def people(out: Console) -> None:
            out.print(f"{made.get('id')}  {name}", markup=False)
            out.print(f"{made.get('secret')}", style="bold")
            out.print("This is the only time the secret is shown. Use it as LATTICE_API_KEY.", style="dim")

        show(made, common.json, people)


def list_(*, common: Common = DEFAULT) -> None:
    """List the account's keys: scopes, limits and last use; never a secret."""
    with common.client() as client:
        found = list(client.list_keys())

        def people(out: Console) -> None:
            columns = ("id", "name", "prefix", "scopes", "state", "last used")
            rows = [
                (
                    cell(key.get("id")),
                    cell(key.get("name")),
                    cell(key.get("prefix")),
                    cell(key.get("scopes")),
                    _state(key),
                    when(key.get("last_used_at_ms")),
                )
                for key in found
            ]
            table(out, columns, rows)

        show({"keys": found}, common.json, people)


def revoke(key: str, /, *, common: Common = DEFAULT) -> None:
    """Revoke a key at once; work that runs is not cut off.

    Parameters
    ----------
    key
        The key's id, not its secret.
    """
    with common.client() as client:
        gone = client.revoke_key(key)
        show(gone, common.json, lambda out: out.print(f"Revoked {key}."))


def show_key(*, common: Common = DEFAULT) -> None:
    """Show what the key in LATTICE_API_KEY is and may do."""
    with common.client() as client:
        own = client.key()

        def people(out: Console) -> None:
            for name, value in own.items():
                shown = when(value) if name.endswith("_at_ms") else cell(value)
                if shown:
                    out.print(f"{name.removesuffix('_ms'):<22}{shown}", markup=False)

        show(own, common.json, people)


def _state(key: dict[str, Any]) -> str:
    if key.get("revoked_at_ms"):
        return "revoked"
    expires = key.get("expires_at_ms")
    if isinstance(expires, int):
        return "expired" if expires <= time.time_ns() // 1_000_000 else f"until {when(expires)}"
    return "live"
