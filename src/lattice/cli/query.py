"""`lattice query`: ask an encrypted model about the samples of a file, without anybody else seeing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lattice.cli.end_user import DEFAULT, EndUser
from lattice.cli.model_views import heard, stages
from lattice.cli.output import show, table

if TYPE_CHECKING:
    from rich.console import Console


def query(
    data: str,
    /,
    *,
    count: int | None = None,
    labels: str | None = None,
    strict: Annotated[bool, Parameter(negative=())] = False,
    verify: int = 1,
    database: str | None = None,
    user: EndUser = DEFAULT,
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
        The id of an encrypted database to search in, as `lattice databases upload` printed it.
    """
    with user.client() as client, stages(user.json) as progress:
        from lattice.cli.encrypted_models import counted
        from lattice.cli.model_data import read_data

        found = read_data(data, labels).first(count)
        with heard() as warnings:
            client.keys.ensure(counted(progress))
            answer = client.query(found.samples, strict=strict, verify=verify, database=database)
        said = {
            "values": answer.values.tolist(),
            "labels": None if answer.labels is None else answer.labels.tolist(),
            "truth": None if found.labels is None else found.labels.tolist(),
            "warnings": warnings,
        }
        show(said, user.json, lambda out: _print(out, said))


def _print(out: Console, said: dict[str, Any]) -> None:
    predicted = said["labels"] or [", ".join(f"{value:.4g}" for value in row) for row in said["values"]]
    truth = said["truth"] or [""] * len(predicted)
    rows = [(str(number), str(label), str(true)) for number, (label, true) in enumerate(zip(predicted, truth))]  # noqa: B905
    table(out, ("sample", "prediction", "truth" if said["truth"] else ""), rows)
    for warning in said["warnings"]:
        out.print(f"warning: {warning}", style="yellow", markup=False)
