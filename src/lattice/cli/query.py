"""`lattice query`: ask an encrypted model about the samples of a file, without anybody else seeing them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lattice.cli.common import DEFAULT, Common
from lattice.cli.model_views import heard, stages
from lattice.cli.output import reporting, show, table

if TYPE_CHECKING:
    from rich.console import Console

PASSPHRASE = "LATTICE_KEY_PASSPHRASE"  # noqa: S105


def query(
    data: str,
    /,
    *,
    count: int | None = None,
    labels: str | None = None,
    strict: Annotated[bool, Parameter(negative=())] = False,
    verify: int = 1,
    database: str | None = None,
    keys: Path | None = None,
    common: Common = DEFAULT,
) -> None:
    """Encrypt samples here, have a worker evaluate the model on them, and decrypt the predictions here.

    Needs an access token in LATTICE_ACCESS_TOKEN. The first time it makes keys and uploads those that are public; the
    secret stays in a folder of this user, encrypted (under LATTICE_KEY_PASSPHRASE, where that is set).

    Parameters
    ----------
    data
        Samples: .npz (array x), .npy or .csv.
    count
        Ask only about so many.
    labels
        The true labels, as an array or column of the data or a file of their own, to print beside the answers.
    strict
        Refuse samples outside of the range that the model was calibrated on, instead of warning.
    verify
        2: have two workers compute, and compare their results bit for bit.
    database
        The id of an encrypted database to search in.
    keys
        The folder of the keys; the user's own otherwise.
    """
    with reporting(common.json), stages(common.json) as progress:
        from lattice.cli.encrypted_models import counted
        from lattice.cli.model_data import read_data
        from lattice.client.encrypted.query import QueryClient

        found = read_data(data, labels).first(count)
        passphrase = os.environ.get(PASSPHRASE) or None
        with QueryClient(base_url=common.gateway, folder=keys, passphrase=passphrase) as client, heard() as warnings:
            client.keys.ensure(counted(progress))
            answer = client.query(found.samples, strict=strict, verify=verify, database=database)
        said = {
            "values": answer.values.tolist(),
            "labels": None if answer.labels is None else answer.labels.tolist(),
            "truth": None if found.labels is None else found.labels.tolist(),
            "warnings": warnings,
        }
        show(said, common.json, lambda out: _print(out, said))


def _print(out: Console, said: dict[str, Any]) -> None:
    predicted = said["labels"] or [", ".join(f"{value:.4g}" for value in row) for row in said["values"]]
    truth = said["truth"] or [""] * len(predicted)
    rows = [(str(number), str(label), str(true)) for number, (label, true) in enumerate(zip(predicted, truth))]  # noqa: B905
    table(out, ("sample", "prediction", "truth" if said["truth"] else ""), rows)
    for warning in said["warnings"]:
        out.print(f"warning: {warning}", style="yellow", markup=False)
