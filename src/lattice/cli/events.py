"""`lattice events`: what happens to the account's models, workers and credits, as it happens."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lattice.cli.common import DEFAULT, Common, cell, when
from lattice.cli.output import console

if TYPE_CHECKING:
    from collections.abc import Iterator

_SHOWN = ("model", "worker", "version", "state", "reason", "remaining_seconds")


def events(
    *, model: str | None = None, after: str | None = None, count: int | None = None, common: Common = DEFAULT
) -> None:
    """Print what happened and what happens, one event a line (with --json a JSON object a line), until interrupted.

    Parameters
    ----------
    model
        Only the events of this model, by its name or id; the account's otherwise.
    after
        Only what came after the event of this id.
    count
        End after so many.
    """
    with common.client() as client:
        found = client.account_events(after=after) if model is None else client.model_events(model, after=after)
        for event in _first(found, count):
            if common.json:
                print(json.dumps(event), flush=True)
            else:
                facts = "  ".join(f"{name} {cell(event[name])}" for name in _SHOWN if event.get(name) is not None)
                line = f"{when(event.get('created_at_ms'))}  {event.get('kind')}  {facts}"
                console().print(line, markup=False, soft_wrap=True)


def _first(found: Iterator[dict[str, Any]], count: int | None) -> Iterator[dict[str, Any]]:
    if count is not None and count <= 0:
        return
    for number, event in enumerate(found, 1):
        yield event
        if number == count:
            return
