"""`lattice usage` and `lattice ledger`: what was counted, and what was posted."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from lattice.cli.common import DEFAULT, Common, cell, when
from lattice.cli.output import show, table

if TYPE_CHECKING:
    from rich.console import Console

_PAGE = 100


def usage(*, limit: int = 20, common: Common = DEFAULT) -> None:
    """List what was asked, counted and charged, newest first.

    Parameters
    ----------
    limit
        The most rows to show.
    """
    with common.client() as client:
        rows = list(islice(client.usage(limit=min(limit, _PAGE)), limit))
        columns = (
            "created_at_ms",
            "model",
            "runtime",
            "sealing",
            "prompt_tokens",
            "completion_tokens",
            "charged_micro",
        )
        show({"usage": rows}, common.json, lambda out: _print(out, columns, rows))


def ledger(*, work: str | None = None, limit: int = 20, common: Common = DEFAULT) -> None:
    """List the account's ledger postings, newest first. Amounts are micro-credits.

    Parameters
    ----------
    work
        Only the postings of this work.
    limit
        The most rows to show.
    """
    with common.client() as client:
        rows = list(islice(client.ledger_entries(work=work, limit=min(limit, _PAGE)), limit))
        columns = ("created_at_ms", "kind", "ledger_account", "amount_micro", "work", "reason")
        show({"entries": rows}, common.json, lambda out: _print(out, columns, rows))


def _print(out: Console, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    headings = tuple(name.removesuffix("_at_ms").removesuffix("_micro").replace("_", " ") for name in columns)
    table(out, headings, [tuple(_cell(name, row.get(name)) for name in columns) for row in rows])


def _cell(name: str, value: object) -> str:
    return when(value) if name.endswith("_at_ms") else cell(value)
