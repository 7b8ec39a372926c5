"""`lattice query-keys`: an end user's keys for an encrypted model, by device."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lattice.cli.common import cell, when
from lattice.cli.end_user import DEFAULT, EndUser
from lattice.cli.model_views import stages
from lattice.cli.output import show, table

if TYPE_CHECKING:
    from rich.console import Console

EXPORT_PASSPHRASE = "LATTICE_EXPORT_PASSPHRASE"  # noqa: S105


def make(*, replace: Annotated[bool, Parameter(negative=())] = False, user: EndUser = DEFAULT) -> None:
    """Make this device's keys and upload those that are public; `lattice query` does so by itself.

    Parameters
    ----------
    replace
        Make a new secret, and put its keys in the place of this device's. What is encrypted under the old one is lost.
    """
    with user.client() as client, stages(user.json) as progress:
        from lattice.cli.encrypted_models import counted

        made = client.keys.ensure(counted(progress), replace=replace)
        show({"evaluation_keys": made}, user.json, lambda out: out.print(made, markup=False))


def list_(*, user: EndUser = DEFAULT) -> None:
    """List the user's sets of evaluation keys, one for each device that has a secret of its own."""
    with user.client() as client:
        found = client.keys.list()
        columns = ("id", "device", "here", "current", "bytes", "made")
        rows = [
            (
                str(each["id"]),
                cell(each.get("device")),
                "yes" if each["this_device"] else "",
                "yes" if each.get("current") else "",
                str(each["bytes"]),
                when(each.get("created_at_ms")),
            )
            for each in found
        ]
        show({"keys": found}, user.json, lambda out: table(out, columns, rows))


def delete(evaluation_keys: str, /, *, user: EndUser = DEFAULT) -> None:
    """Delete a set of evaluation keys at the gateway. No secret is deleted; the device makes its set again.

    Parameters
    ----------
    evaluation_keys
        Its id.
    """
    with user.client() as client:
        client.keys.delete(evaluation_keys)
        said = {"deleted": evaluation_keys}
        show(said, user.json, lambda out: out.print(f"Deleted {evaluation_keys}.", markup=False))


def export(file: Path, /, *, user: EndUser = DEFAULT) -> None:
    """Write this device's secret to a file, sealed under a passphrase, for another device of yours.

    Both devices then share one set of keys, and read each other's databases and results. The passphrase is
    LATTICE_EXPORT_PASSPHRASE, or is asked for.

    Parameters
    ----------
    file
        Where to write; must not exist.
    """
    with user.client() as client:
        from lattice.core.errors import LatticeError

        data = client.keys.export(_passphrase(twice=True))
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise LatticeError("invalid_request", f"{file} cannot be written: {error.strerror}.") from None
        with os.fdopen(descriptor, "wb") as out:
            out.write(data)

        def people(out: Console) -> None:
            out.print(f"{file}: sealed. Delete it once the other device has it.", markup=False)

        show({"file": str(file)}, user.json, people)


def import_(
    file: Path, /, *, replace: Annotated[bool, Parameter(negative=())] = False, user: EndUser = DEFAULT
) -> None:
    """Take the secret that another device exported, and share its keys.

    Parameters
    ----------
    file
        What `lattice query-keys export` wrote.
    replace
        Give up the secret that this device has, with everything that is encrypted under it.
    """
    with user.client() as client:
        from lattice.core.errors import LatticeError

        try:
            data = file.read_bytes()
        except OSError as error:
            raise LatticeError("invalid_request", f"{file} cannot be read: {error.strerror}.") from None
        found = client.keys.import_secret(data, _passphrase(), replace=replace)
        said: dict[str, Any] = {"evaluation_keys": found}
        show(said, user.json, lambda out: out.print(f"This device shares {found}.", markup=False))


def _passphrase(*, twice: bool = False) -> str:
    from lattice.core.errors import LatticeError

    given = os.environ.get(EXPORT_PASSPHRASE)
    if given:
        return given
    if not sys.stdin.isatty():
        raise LatticeError("secret_locked", f"{EXPORT_PASSPHRASE} is not set, and nobody can be asked.")
    said = getpass.getpass("Passphrase: ")
    if twice and said != getpass.getpass("Again: "):
        raise LatticeError("secret_locked", "The two passphrases differ.")
    return said
