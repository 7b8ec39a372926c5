"""`lattice databases`: rows that an end user encrypts and uploads once, for a model that searches in them."""

from __future__ import annotations

from typing import Any

from lattice.cli.common import cell, when
from lattice.cli.end_user import DEFAULT, EndUser
from lattice.cli.model_views import stages
from lattice.cli.output import show, table


def upload(data: str, /, *, user: EndUser = DEFAULT) -> None:
    """Encrypt rows here and upload them, once. An interrupted upload needs to be begun again.

    Needs an access token in LATTICE_ACCESS_TOKEN. The id that is printed goes into `lattice query --database`.

    Parameters
    ----------
    data
        The rows: .npz (array x), .npy or .csv; as many, and as wide, as the model was compiled for.
    """
    with user.client() as client, stages(user.json) as progress:
        from lattice.cli.encrypted_models import counted
        from lattice.cli.model_data import read_data

        rows = read_data(data, None).samples
        client.keys.ensure(counted(progress))
        made = client.upload_database(rows, counted(progress))
        said = {"id": made, "sha256": client.databases.sha256(made), "rows": len(rows)}

        def people(out: Any) -> None:
            out.print(made, markup=False)
            out.print(f"Search in it with: lattice query FILE --database {made}", style="dim", markup=False)

        show(said, user.json, people)


def list_(*, user: EndUser = DEFAULT) -> None:
    """List the user's encrypted databases."""
    with user.client() as client:
        found = client.databases.list()
        rows = [(str(each["id"]), str(each["bytes"]), when(each.get("created_at_ms"))) for each in found]
        show({"databases": found}, user.json, lambda out: table(out, ("id", "bytes", "made"), rows))


def show_(database: str, /, *, user: EndUser = DEFAULT) -> None:
    """Show the hash that this device noted when it uploaded a database, for `pin` on another device.

    Parameters
    ----------
    database
        Its id.
    """
    with user.client() as client:
        said = {"id": database, "sha256": client.databases.sha256(database)}
        show(said, user.json, lambda out: out.print(cell(said["sha256"]), markup=False))


def pin(database: str, sha256: str, /, *, user: EndUser = DEFAULT) -> None:
    """Tell this device which bytes a database is, so that it refuses answers about any other.

    Parameters
    ----------
    database
        Its id.
    sha256
        What `lattice databases show` prints on the device that uploaded it.
    """
    with user.client() as client:
        client.databases.pin(database, sha256)
        said = {"id": database, "sha256": sha256}
        show(said, user.json, lambda out: out.print(f"Pinned {database}.", markup=False))


def delete(database: str, /, *, user: EndUser = DEFAULT) -> None:
    """Delete an encrypted database. Queries that wait for a worker fail.

    Parameters
    ----------
    database
        Its id.
    """
    with user.client() as client:
        client.databases.delete(database)
        show({"deleted": database}, user.json, lambda out: out.print(f"Deleted {database}.", markup=False))
