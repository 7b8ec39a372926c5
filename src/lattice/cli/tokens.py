"""`lattice tokens`: what end users query an encrypted model with."""

from __future__ import annotations

import time
from typing import Any

from lattice.cli.common import DEFAULT, Common, cell, when
from lattice.cli.output import show, table

_DAY_MS = 86_400_000


def create(
    model: str,
    name: str,
    /,
    *,
    user: str | None = None,
    days: float | None = None,
    requests_per_minute: int | None = None,
    budget: str | None = None,
    common: Common = DEFAULT,
) -> None:
    """Make an access token for one user of a model and show it, once.

    Parameters
    ----------
    model
        The model's name or id.
    name
        What to call the token.
    user
        Whose it is, as you call your users; keys belong to users. Without one, assign it later.
    days
        In how many days it expires.
    requests_per_minute
        How many queries a minute it may send.
    budget
        The most credits that its queries may cost.
    """
    with common.client() as client:
        from lattice.cli.amounts import micro_credits

        wanted: dict[str, Any] = {
            "user": user,
            "expires_at_ms": None if days is None else time.time_ns() // 1_000_000 + int(days * _DAY_MS),
            "requests_per_minute": requests_per_minute,
            "budget_micro": None if budget is None else micro_credits(budget),
        }
        made = client.tokens.create(model, name, **wanted)

        def people(out: Any) -> None:
            out.print(f"{made['id']}  {name}", markup=False)
            out.print(f"{made['secret']}", style="bold", markup=False)
            out.print("This is the only time it is shown. Use it as LATTICE_ACCESS_TOKEN.", style="dim")

        show(made, common.json, people)


def list_(model: str, /, *, common: Common = DEFAULT) -> None:
    """List a model's access tokens with what each has used; never a secret.

    Parameters
    ----------
    model
        The model's name or id.
    """
    with common.client() as client:
        found = list(client.tokens.list(model))
        columns = ("id", "name", "user", "state", "queries", "expires", "last used")
        rows = [
            (
                str(each["id"]),
                str(each["name"]),
                cell(each.get("user")),
                cell(each.get("state")),
                cell(each.get("queries")),
                when(each.get("expires_at_ms")),
                when(each.get("last_used_at_ms")),
            )
            for each in found
        ]
        show({"tokens": found}, common.json, lambda out: table(out, columns, rows))


def revoke(model: str, token: str, /, *, common: Common = DEFAULT) -> None:
    """Revoke an access token for good, within a second.

    Parameters
    ----------
    model
        The model's name or id.
    token
        The token's id, not its secret.
    """
    with common.client() as client:
        gone = client.tokens.revoke(model, token)
        show(gone, common.json, lambda out: out.print(f"Revoked {token}.", markup=False))


def assign(model: str, token: str, user: str | None = None, /, *, common: Common = DEFAULT) -> None:
    """Give an access token to a user, or take it back where none is named.

    Parameters
    ----------
    model
        The model's name or id.
    token
        The token's id.
    user
        Whose it is from now on.
    """
    with common.client() as client:
        made = client.tokens.assign(model, token, user) if user else client.tokens.unassign(model, token)
        show(made, common.json, lambda out: out.print(f"{token} belongs to {user or 'nobody'}.", markup=False))
