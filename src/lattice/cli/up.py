"""`lattice up`: a whole gateway on SQLite, with no configuration."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lattice.cli.output import console, reporting

if TYPE_CHECKING:
    from lattice.gateway.identity.owner import OwnerKey
    from lattice.gateway.state import Gateway


def up(
    *,
    host: str | None = None,
    port: int | None = None,
    data_dir: Path | None = None,
    public_url: str | None = None,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Run a gateway until Ctrl-C. The first start makes the owner's account and prints its key, once.

    Example: lattice up --port 8787

    Parameters
    ----------
    host
        Address to listen on; 127.0.0.1 otherwise.
    port
        Port to listen on; 0 picks a free one, 8787 otherwise.
    data_dir
        Folder for the database and the gateway's keys; your data folder otherwise.
    public_url
        The address under which daemons and clients reach this gateway, where it is not http://host:port.
    json
        Print one JSON object when the gateway is ready.
    """
    with reporting(json):
        from lattice.core.errors import LatticeError

        try:
            import uvloop

            from lattice.gateway.log import configure_logging
            from lattice.gateway.serve import serve
            from lattice.gateway.settings import load_settings
        except ModuleNotFoundError as error:
            missing = f"{error.name} is not installed: install Lattice with its `gateway` extra."
            raise LatticeError("config_invalid", missing) from None
        given = {"host": host, "port": port, "data_dir": data_dir, "public_url": public_url}
        settings = load_settings({name: value for name, value in given.items() if value is not None})
        configure_logging(settings.log_level, settings.log_json)
        uvloop.run(serve(settings, lambda gateway, owner: _ready(gateway, owner, json)))


def _ready(gateway: Gateway, owner: OwnerKey | None, as_json: bool) -> None:
    url = gateway.settings.origin
    if as_json:
        report: dict[str, Any] = {"url": url, "data_dir": str(gateway.settings.data_dir)}
        if owner is not None:
            report |= {"account": owner.account_id, "key": owner.secret}
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()
        return
    out = console()
    out.print(f"Lattice gateway on [bold]{url}[/bold]  (data in {gateway.settings.data_dir})")
    if owner is not None:
        out.print(f"\nThe owner's key, shown this once:\n  [bold]{owner.secret}[/bold]\n")
        out.print("Next, in another terminal:")
        out.print(f"  export LATTICE_BASE_URL={url} LATTICE_API_KEY={owner.secret[:10]}…")
        out.print("  lattice runtimes create laptop && lattice runtimes bootstrap lat_…")
        out.print(f"  lattice-ctl relay connect --gateway {url} && lattice-ctl daemon start")
    out.print("Ctrl-C stops it after running work has finished.")
