"""`lattice-ctl worker`: evaluate one encrypted model on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from lattice.cli.output import reporting

CREDENTIAL = "LATTICE_WORKER_CREDENTIAL"


def run(
    *,
    gateway: str | None = None,
    cache: Path | None = None,
    concurrency: int = 0,
    cache_gb: float = 20.0,
    memory_gb: float = 8.0,
    watch_parent: Annotated[bool, Parameter(negative=())] = False,
    allow_plain_http: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Evaluate encrypted queries of one model until the gateway, a signal or the end of paid time stops it.

    The credential is read from LATTICE_WORKER_CREDENTIAL, or else from the first line of standard input: other users of
    the machine can read command lines. Progress goes to standard error.

    Example: LATTICE_WORKER_CREDENTIAL=rlc_… lattice-ctl worker run --gateway https://gateway.example

    Parameters
    ----------
    gateway
        The gateway's address; LATTICE_BASE_URL, or http://127.0.0.1:8787, otherwise.
    cache
        A folder for programs and keys; one of the user's cache otherwise.
    concurrency
        How many queries to evaluate at once; 0 means one for each core.
    cache_gb
        How large the folder may grow.
    memory_gb
        How much memory decoded keys may take, and as much again two programs while one takes the other's place.
    watch_parent
        End at once when standard input is closed, as it is when the parent process dies.
    allow_plain_http
        Permit http:// to another machine, where the network itself is private.
    """
    with reporting(as_json=False):
        from lattice.core.defaults import GATEWAY_URL
        from lattice.core.errors import LatticeError
        from lattice.runtime.http import require_safe_url
        from lattice.runtime.log import configure
        from lattice.runtime.settings import LogSettings
        from lattice.runtime.worker.service import WorkerSettings, serve

        credential = os.environ.pop(CREDENTIAL, "") or sys.stdin.readline().strip()
        if not credential:
            raise LatticeError("invalid_credential", f"{CREDENTIAL} is not set, and standard input has no line.")
        configure(LogSettings())
        address = gateway or os.environ.get("LATTICE_BASE_URL") or GATEWAY_URL
        settings = WorkerSettings(
            gateway=require_safe_url(address, allow_plain_http),
            credential=credential,
            cache=(cache or _default_cache()).expanduser(),
            concurrency=concurrency,
            cache_bytes=int(cache_gb * 1e9),
            memory_bytes=int(memory_gb * 1e9),
        )
        status = serve(settings, sys.stdin.fileno() if watch_parent else None)
    raise SystemExit(status)


def _default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lattice" / "worker"
