"""`lattice workers`: the machines that evaluate encrypted models, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lattice.cli.common import DEFAULT, Common, cell, when
from lattice.cli.output import show, table

if TYPE_CHECKING:
    from rich.console import Console


def start(
    model: str,
    /,
    *,
    hardware_class: str | None = None,
    count: int = 1,
    wait: bool = True,
    timeout: float = 120.0,
    common: Common = DEFAULT,
) -> None:
    """Start workers for a model. Their time is paid for from the moment that they are active.

    Parameters
    ----------
    model
        The model's name or id.
    hardware_class
        What to run on; see the prices with `lattice credits statement`. The model's setting otherwise.
    count
        How many.
    wait
        Return only when they are active.
    timeout
        Seconds to wait.
    """
    with common.client() as client:
        started = client.workers.start(model, hardware_class=hardware_class, count=count)
        if wait and hardware_class != "own":
            started = [client.workers.wait_active(str(each["id"]), timeout_s=timeout) for each in started]

        def people(out: Console) -> None:
            _print_workers(out, started)
            for each in started:
                if each.get("credential"):
                    out.print(f"credential  {each['credential']}  (shown this once)", markup=False)

        show({"workers": started}, common.json, people)


def stop(worker: str, /, *, common: Common = DEFAULT) -> None:
    """Stop a worker: it finishes what it has, for up to five seconds.

    Parameters
    ----------
    worker
        Its id.
    """
    with common.client() as client:
        found = client.workers.stop(worker)
        show(found, common.json, lambda out: out.print(f"Stopping {worker}.", markup=False))


def list_(model: str | None = None, /, *, common: Common = DEFAULT) -> None:
    """List workers with their states.

    Parameters
    ----------
    model
        Only those of this model.
    """
    with common.client() as client:
        found = list(client.workers.list(model))
        show({"workers": found}, common.json, lambda out: _print_workers(out, found))


def sessions(*, limit: int = 100, common: Common = DEFAULT) -> None:
    """List what ran, for how long, and what it cost.

    Parameters
    ----------
    limit
        How many, newest first.
    """
    from itertools import islice

    with common.client() as client:
        found = list(islice(client.workers.sessions(), limit))
        show({"sessions": found}, common.json, lambda out: _print_workers(out, found))


def _print_workers(out: Console, found: list[dict[str, Any]]) -> None:
    columns = ("id", "model", "version", "hardware", "state", "reason", "started", "seconds", "micro-credits")
    rows = [
        (
            str(each.get("id")),
            cell(each.get("model")),
            _version(each),
            cell(each.get("hardware_class")),
            cell(each.get("state")),
            cell(each.get("reason")),
            when(each.get("started_at_ms")),
            f"{(each.get('billed_ms') or 0) / 1000:.1f}",
            cell(each.get("billed_micro")),
        )
        for each in found
    ]
    table(out, columns, rows)


def _version(each: dict[str, Any]) -> str:
    """`2`, `2 → 3` while the next one is ready beside it, `2 (3 failed)` where it could not be loaded."""
    text, following, failed = str(each.get("version")), each.get("next_version"), each.get("failed_version")
    if following:
        return f"{text} → {following}"
    return f"{text} ({failed} failed)" if failed else text
