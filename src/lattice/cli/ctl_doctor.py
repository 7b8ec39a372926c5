"""`lattice-ctl doctor`: what is broken, in words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lattice.cli.ctl_common import DEFAULT, Common
from lattice.cli.output import EXIT_FAILED, reporting, show

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(*, common: Common = DEFAULT) -> None:
    """Check everything that the machine needs and say how to repair it. Exit status 1 if a check fails.

    Example: lattice-ctl doctor
    """
    with reporting(common.json):
        from lattice.runtime.doctor import examine

        checks = asyncio.run(examine(common.config))

        def people(out: Console) -> None:
            from rich.text import Text

            for check in checks:
                out.print(
                    Text.assemble((f"{check.state:<5}", _COLOURS[check.state]), f"{check.name:<12}", check.detail)
                )
                if check.remedy:
                    out.print(Text(f"{'':17}{check.remedy}", style="dim"))

        failed = any(check.state == "fail" for check in checks)
        show({"ok": not failed, "checks": checks}, common.json, people)
        if failed:
            raise SystemExit(EXIT_FAILED)
