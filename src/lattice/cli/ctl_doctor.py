"""`lattice-ctl doctor`: what is broken, in words."""

from __future__ import annotations

import asyncio

from lattice.cli.checks import show_checks
from lattice.cli.ctl_common import DEFAULT, Common
from lattice.cli.output import reporting


def doctor(*, common: Common = DEFAULT) -> None:
    """Check everything that the machine needs and say how to repair it. Exit status 1 if a check fails.

    Example: lattice-ctl doctor
    """
    with reporting(common.json):
        from lattice.runtime.doctor import examine

        show_checks(asyncio.run(examine(common.config)), common.json)
