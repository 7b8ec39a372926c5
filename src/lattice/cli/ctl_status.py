"""`lattice-ctl status` and `lattice-ctl ping`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from lattice.cli.ctl_common import DEFAULT, Common
from lattice.cli.output import show

if TYPE_CHECKING:
    from rich.console import Console


def status(*, common: Common = DEFAULT) -> None:
    """Show the daemon, the model, the pairing and the connection.

    Example: lattice-ctl status --json
    """
    with common.session() as (_settings, state):
        from lattice.runtime.control import fetch_status

        report = fetch_status(state)
        show(report, common.json, lambda out: _print_status(out, report))


def ping(*, gateway: str | None = None, count: int = 3, common: Common = DEFAULT) -> None:
    """Ask the gateway whether it is there, and how long the way takes.

    Example: lattice-ctl ping --gateway https://gateway.example

    Parameters
    ----------
    gateway
        The gateway's address; the paired one, or the setting gateway_url, otherwise.
    count
        How many times to ask.
    """
    with common.session() as (settings, state):
        from lattice.runtime.control import ping_gateway
        from lattice.runtime.machine import load_pairing

        pairing = load_pairing(state)
        url = gateway or (pairing.origin if pairing else settings.gateway_url)
        answer = asyncio.run(ping_gateway(url, count))

        def people(out: Console) -> None:
            out.print(f"{url} answers: {answer['best_ms']:.1f} ms at best of {len(answer['times_ms'])}.")
            if answer["skew_ms"] is not None and abs(answer["skew_ms"]) > 60_000:
                out.print(f"  This machine's clock is {answer['skew_ms'] / 1000:.0f} s off the gateway's.")

        show(answer, common.json, people)


def _print_status(out: Console, report: dict[str, Any]) -> None:
    engine, pairing, relay = report["engine"], report.get("pairing"), report.get("relay")
    names = ", ".join(model["id"] for model in engine.get("models", ())) or "none"
    out.print(f"daemon       running (process {report['pid']}, version {report['version']})")
    out.print(f"engine       {engine['name']}")
    out.print(f"models       {names}")
    if engine.get("problem"):
        out.print(f"             {engine['problem']}")
    if pairing:
        verified = "verified" if pairing["verified"] else "unverified: compare the fingerprint in the app"
        out.print(f"gateway      {pairing['origin']} ({verified})")
        out.print(f"model id     {pairing['model']}")
    else:
        out.print("gateway      not paired: lattice-ctl relay connect --token lbt_…")
    if relay:
        problem = f" ({relay['problem']})" if relay.get("problem") else ""
        out.print(f"relay        {relay['state']}{problem}")
        counts = ", ".join(f"{count} {word}" for word, count in relay["work"].items())
        out.print(f"work         {counts}")
    out.print(f"fingerprint  {report['fingerprint']}")
    out.print(f"local API    {report.get('local_api') or 'off'}")
