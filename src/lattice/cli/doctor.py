"""`lattice doctor`: what an app developer's or an operator's computer has, and what it lacks, in words."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lattice.cli.checks import show_checks
from lattice.cli.common import DEFAULT, Common
from lattice.cli.output import reporting

if TYPE_CHECKING:
    from lattice.runtime.doctor import Check

_EXTRAS = {
    "gateway": ("fastapi", "sqlalchemy", "uvloop"),
    "llama": ("xllamacpp",),
    "encrypted": ("numpy",),
    "convert": ("onnx",),
    "postgres": ("psycopg",),
}


def doctor(*, common: Common = DEFAULT) -> None:
    """Check this computer: what is installed, which encrypted backend it runs, whether the gateway takes the key.

    Exit status 1 if a check fails. For the owner of a machine there is `lattice-ctl doctor`.
    """
    with reporting(common.json):
        show_checks([*_extras(), _encrypted(), _gateway(common.gateway)], common.json)


def _extras() -> Iterator[Check]:
    from lattice.runtime.doctor import Check

    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            remedy = f"Install Lattice with its `{extra}` extra, if you want it."
            yield Check(extra, "warn", f"{', '.join(missing)} is not installed", remedy)
        else:
            yield Check(extra, "ok", "installed")


def _encrypted() -> Check:
    from lattice.runtime.doctor import Check

    if importlib.util.find_spec("numpy") is None:
        return Check("backend", "warn", "no encrypted computation without the `encrypted` extra")
    from lattice.fhe.hal.choose import choose

    choice = choose()
    return Check("backend", "ok" if choice.name == "native" else "warn", choice.explain())


def _gateway(address: str | None) -> Check:
    from lattice.core.errors import LatticeError
    from lattice.runtime.doctor import Check

    if not os.environ.get("LATTICE_API_KEY"):
        return Check("gateway", "warn", "LATTICE_API_KEY is not set, so no gateway was asked", "Export your key first.")
    from lattice.client.management import ManagementClient

    try:
        with ManagementClient(address) as client:
            key = client.key()
    except LatticeError as error:
        return Check("gateway", "fail", f"{error.code}: {error.message}", error.spec.remedy)
    return Check("gateway", "ok", f"{client.base_url} takes the key {key['name']!r} ({len(key['scopes'])} scopes)")
