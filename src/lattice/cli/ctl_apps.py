"""`lattice-ctl apps`: the allow-list of senders."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lattice.cli.ctl_common import DEFAULT, Common
from lattice.cli.output import show, table

if TYPE_CHECKING:
    from rich.console import Console

# One key in 64 begins with a dash.
Name = Annotated[str, Parameter(allow_leading_hyphen=True)]


def allow(key: Name, /, *, label: str = "app", common: Common = DEFAULT) -> None:
    """Let an app's sealed work be opened here. The daemon needs no restart.

    Example: lattice-ctl apps allow 3q2-7wAB... --label "my laptop"

    Parameters
    ----------
    key
        The sender key that the app shows: 43 characters.
    label
        A name to recognise it by.
    """
    with common.session() as (_settings, state):
        from lattice.runtime.allow import AllowList

        entry = AllowList(state).add(key, label, "app", time.time_ns() // 1_000_000)
        show(entry, common.json, lambda out: out.print(f"Allowed: {entry.label} ({entry.key})."))


def list_(*, common: Common = DEFAULT) -> None:
    """List whose sealed work this machine opens. The gateway's own key serves plain OpenAI clients.

    Example: lattice-ctl apps list
    """
    with common.session() as (_settings, state):
        from lattice.runtime.allow import AllowList

        entries = AllowList(state).entries()

        def people(out: Console) -> None:
            if not entries:
                out.print("Nobody is allowed yet: pair the machine, or use lattice-ctl apps allow.")
                return
            rows = [(e.label, e.kind, e.key, _date(e.added_at_ms)) for e in entries]
            table(out, ("label", "kind", "key", "added"), rows)

        show({"data": entries}, common.json, people)


def remove(key_or_label: Name, /, *, common: Common = DEFAULT) -> None:
    """Stop opening a sender's work. Removing the gateway's key leaves end-to-end sealed work only.

    Example: lattice-ctl apps remove "my laptop"

    Parameters
    ----------
    key_or_label
        The key, its first 8 characters or more, or the label.
    """
    with common.session() as (_settings, state):
        from lattice.runtime.allow import AllowList

        gone = AllowList(state).remove(key_or_label)
        show({"removed": gone}, common.json, lambda out: out.print(f"Removed: {', '.join(e.label for e in gone)}."))


def _date(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at_ms / 1000))
