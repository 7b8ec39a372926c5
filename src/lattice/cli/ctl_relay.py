"""`lattice-ctl relay connect`: pair this machine with a gateway."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lattice.cli.ctl_common import DEFAULT, Common
from lattice.cli.output import show

if TYPE_CHECKING:
    from rich.console import Console

TOKEN_VARIABLE = "LATTICE_BOOTSTRAP_TOKEN"  # noqa: S105


def connect(
    *,
    token: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    gateway: str | None = None,
    name: str | None = None,
    common: Common = DEFAULT,
) -> None:
    """Pair this machine: redeem the bootstrap string that your app or the gateway made. Safe to repeat.

    Example: lattice-ctl relay connect --token lbt_... --gateway https://gateway.example

    Parameters
    ----------
    token
        The whole string, lbt_... with the part after the dot. "-" reads it from standard input; without the option
        LATTICE_BOOTSTRAP_TOKEN is used, or you are asked.
    gateway
        The gateway's address; the setting gateway_url otherwise.
    name
        What to call this machine; otherwise it keeps the name that it was created with.
    """
    with common.session() as (settings, state):
        from lattice.runtime.control import daemon_pid
        from lattice.runtime.machine import load_identity
        from lattice.runtime.pairing import redeem

        pairing = asyncio.run(
            redeem(
                gateway or settings.gateway_url,
                _read_token(token),
                state,
                name=name,
                allow_plain_http=settings.allow_plain_http,
            )
        )
        identity = load_identity(state)
        words = identity.public.words if identity else ""
        running = daemon_pid(state) is not None
        report = {
            "runtime": pairing.runtime,
            "gateway": pairing.origin,
            "model": f"lattice:personal:{pairing.runtime}",
            "verified": pairing.verified,
            "fingerprint": words,
            "daemon_running": running,
        }

        def people(out: Console) -> None:
            out.print(f"Paired with {pairing.origin}.")
            out.print(f"  model        lattice:personal:{pairing.runtime}")
            out.print(f"  fingerprint  {words}")
            if not pairing.verified:
                out.print("  The token had no pairing secret: compare the fingerprint with what the app shows.")
            out.print("The daemon connects now." if running else "Next: lattice-ctl daemon start")

        show(report, common.json, people)


def _read_token(token: str | None) -> str:
    from lattice.core.errors import LatticeError

    given = token or os.environ.get(TOKEN_VARIABLE)
    if given == "-":
        given = sys.stdin.readline()
    if not given and sys.stdin.isatty():
        from getpass import getpass

        given = getpass("Bootstrap string (lbt_…): ")
    if not given or not given.strip():
        raise LatticeError("bootstrap_token_invalid", "No bootstrap token was given: use `--token`.")
    return given.strip()
