"""How both `doctor` commands print what they found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lattice.cli.output import EXIT_FAILED, show

if TYPE_CHECKING:
    from rich.console import Console

    from lattice.runtime.doctor import Check

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def show_checks(checks: Sequence[Check], as_json: bool) -> None:
    """Print the findings; exit status 1 if one of them is a failure."""

    def people(out: Console) -> None:
        from rich.text import Text

        for check in checks:
            out.print(Text.assemble((f"{check.state:<5}", _COLOURS[check.state]), f"{check.name:<12}", check.detail))
            if check.remedy:
                out.print(Text(f"{'':17}{check.remedy}", style="dim"))

    failed = any(check.state == "fail" for check in checks)
    show({"ok": not failed, "checks": checks}, as_json, people)
    if failed:
        raise SystemExit(EXIT_FAILED)
