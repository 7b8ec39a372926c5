"""How runtimes are shown: JSON members and table rows, for own and for hosted machines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lattice.cli.common import when
from lattice.cli.output import table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from lattice.client.records import PersonalRuntime


def describe(runtime: PersonalRuntime) -> dict[str, Any]:
    """A runtime for programs. `trust` and `fingerprint` are this app's own findings."""
    return {
        "id": runtime.id,
        "name": runtime.name,
        "kind": runtime.kind,
        "state": runtime.state,
        "trust": str(runtime.trust),
        "fingerprint": runtime.words,
        "model": runtime.model if runtime.kind == "personal" else None,
        "models": [offer.id for offer in runtime.models],
        "last_seen_ms": runtime.last_seen_ms,
        "created_at_ms": runtime.created_at_ms,
    }


def print_runtimes(out: Console, found: Sequence[PersonalRuntime]) -> None:
    """A table."""
    if not found:
        out.print("No machines yet.")
        return
    rows = [
        (r.id, r.name, r.state, str(r.trust), ", ".join(o.id for o in r.models), when(r.last_seen_ms)) for r in found
    ]
    table(out, ("id", "name", "state", "trust", "models", "last seen"), rows)


def print_bootstrap(out: Console, text: str, gateway: str, following: str) -> None:
    """The string, what to do with it on the machine, and what to do here afterwards."""
    out.print(text, style="bold")
    out.print("On the machine, within ten minutes:")
    out.print(f"  lattice-ctl relay connect --gateway {gateway} --token {text}")
    out.print(f"Then here: {following}", style="dim")
