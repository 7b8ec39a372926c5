"""`lattice-ctl daemon`: run it, start it in the background, stop it, ask whether it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lattice.cli.ctl_common import DEFAULT, Common
from lattice.cli.output import EXIT_NOT_READY, show

if TYPE_CHECKING:
    from rich.console import Console


def run(*, common: Common = DEFAULT) -> None:
    """Run the daemon in the foreground until Ctrl-C or SIGTERM; it finishes what it is doing first.

    Example: lattice-ctl daemon run --config ./machine.toml
    """
    with common.session() as (settings, _state):
        from lattice.runtime.daemon import serve
        from lattice.runtime.log import configure

        configure(settings.log)
        serve(settings)


def start(*, timeout: float = 60.0, common: Common = DEFAULT) -> None:
    """Start the daemon in the background and wait until it answers.

    Example: lattice-ctl daemon start

    Parameters
    ----------
    timeout
        Seconds to wait for it.
    """
    with common.session() as (settings, state):
        from lattice.runtime.control import start_daemon

        started = start_daemon(settings, state, common.config, timeout)

        def people(out: Console) -> None:
            out.print(f"The daemon runs (process {started['pid']}).")
            if started["local_api"]:
                out.print(f"  local API  {started['local_api']}/v1")
            out.print(f"  log        {started['log']}")
            if started.get("engine"):
                out.print(f"  model      {started['problem'] or started['engine']}")
            if started.get("relay"):
                out.print(f"  relay      {started['relay']}")
            out.print("  Look closer with: lattice-ctl status")

        show(started, common.json, people)


def stop(*, timeout: float = 40.0, common: Common = DEFAULT) -> None:
    """Stop the daemon: it finishes what runs, for up to 30 seconds, and gives the rest back.

    Example: lattice-ctl daemon stop

    Parameters
    ----------
    timeout
        Seconds to wait for it to end.
    """
    with common.session() as (_settings, state):
        from lattice.runtime.control import stop_daemon

        pid = stop_daemon(state, timeout)
        show({"stopped": True, "pid": pid}, common.json, lambda out: out.print(f"Stopped (process {pid})."))


def status(*, common: Common = DEFAULT) -> None:
    """Say whether the daemon runs. Exit status 0 if it does, 3 if not.

    Example: lattice-ctl daemon status --json
    """
    with common.session() as (_settings, state):
        from lattice.runtime.control import daemon_pid, read_endpoint

        pid = daemon_pid(state)
        endpoint = read_endpoint(state) if pid is not None else None
        report = {"running": pid is not None, "pid": pid, "local_api": endpoint.url if endpoint else None}
        words = f"The daemon runs (process {pid})." if pid is not None else "No daemon runs on this machine."
        show(report, common.json, lambda out: out.print(words))
        if pid is None:
            raise SystemExit(EXIT_NOT_READY)
