"""`lattice credits`: the balance, statements, top-ups, and the operator's grants."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lattice.cli.common import DEFAULT, Common, cell
from lattice.cli.output import show

if TYPE_CHECKING:
    from rich.console import Console


def balance(*, common: Common = DEFAULT) -> None:
    """Show the balance and what running work holds."""
    with common.client() as client:
        from lattice.core.money import format_credits

        found = client.credits()

        def people(out: Console) -> None:
            for name, value in found.items():
                micro = isinstance(value, int) and name.endswith("_micro")
                shown = f"{format_credits(value)} credits" if micro else cell(value)
                out.print(f"{name.removesuffix('_micro'):<14}{shown}", markup=False)

        show(found, common.json, people)


def grant(
    account: str, amount: str, /, *, reason: str, idempotency_key: str | None = None, common: Common = DEFAULT
) -> None:
    """Grant credits to an account. The key needs the scope lattice:admin.

    Parameters
    ----------
    account
        The account's id.
    amount
        Credits, with up to six decimals.
    reason
        What the ledger shall say.
    idempotency_key
        Repeat a grant under the same key, and it is made once.
    """
    with common.client() as client:
        from lattice.cli.amounts import micro_credits

        micro = micro_credits(amount)
        made = client.grant_credits(account, micro, reason, idempotency_key=idempotency_key)
        show(made, common.json, lambda out: out.print(f"Granted {amount} credits to {account}."))


def statement(*, common: Common = DEFAULT) -> None:
    """Show the balance, what running workers hold and cost, and how long the balance lasts at the present rate."""
    with common.client() as client:
        found = client.credits_statement()
        show(found, common.json, lambda out: _print_statement(out, found))


def _print_statement(out: Console, found: dict[str, Any]) -> None:
    from lattice.core.money import format_credits

    for name, value in found.items():
        if isinstance(value, list | dict):
            continue
        micro = isinstance(value, int) and name.endswith("_micro")
        shown = f"{format_credits(value)} credits" if micro else cell(value)
        out.print(f"{name.removesuffix('_micro'):<28}{shown}", markup=False)


def top_up(amount: str, /, *, common: Common = DEFAULT) -> None:
    """Add credits in the way that the gateway's operator has set up.

    Parameters
    ----------
    amount
        Credits, with up to six decimals.
    """
    with common.client() as client:
        from lattice.cli.amounts import micro_credits

        made = client.top_up(micro_credits(amount))

        def people(out: Console) -> None:
            for name, value in made.items():
                out.print(f"{name:<14}{cell(value)}", markup=False)

        show(made, common.json, people)
