"""`lattice models create|upload|list|versions|delete`: what a gateway keeps of a provider's encrypted models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from lattice.cli.common import DEFAULT, Common, cell, when
from lattice.cli.model_views import stages
from lattice.cli.output import show, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from lattice.cli.model_views import Progress


def create(
    name: str,
    /,
    *,
    visibility: Literal["private", "public"] = "private",
    weights: Literal["own", "hosted", "marketplace"] = "hosted",
    hardware_class: str | None = None,
    min_workers: int = 0,
    max_workers: int = 1,
    autostart: Annotated[bool, Parameter(negative=())] = False,
    idle_seconds: int | None = None,
    webhook: str | None = None,
    common: Common = DEFAULT,
) -> None:
    """Make an encrypted model at the gateway, without a version yet.

    Parameters
    ----------
    name
        What to call it; later uploads under the name redeploy it.
    visibility
        Who finds it in the list of models.
    weights
        On whose machines its workers may run, who then see the weights: your own, the gateway's, or anybody's.
    hardware_class
        What its workers run on, where a start names nothing.
    min_workers
        How many workers always run.
    max_workers
        How many may run.
    autostart
        Start a worker when a query comes and none runs.
    idle_seconds
        Stop a worker that had nothing to do for so long.
    webhook
        An https address that is told of the versions' states, signed.
    """
    with common.client() as client:
        settings = {
            "hardware_class": hardware_class,
            "min_workers": min_workers,
            "max_workers": max_workers,
            "autostart": autostart,
            "idle_seconds": idle_seconds,
        }
        made = client.create_encrypted_model(
            name,
            visibility=visibility,
            weights_exposure=weights,
            settings={member: value for member, value in settings.items() if value is not None},
            webhook_url=webhook,
        )

        def people(out: Any) -> None:
            out.print(f"{made['id']}  {name}", markup=False)
            if made.get("webhook_secret"):
                out.print(f"webhook secret  {made['webhook_secret']}  (shown this once)", markup=False)
            out.print(f"Upload a version with: lattice models upload {name} model.lattice", style="dim")

        show(made, common.json, people)


def upload(
    model: str,
    file: Path,
    /,
    *,
    calibration: Path | None = None,
    wait: bool = True,
    timeout: float = 1800.0,
    common: Common = DEFAULT,
) -> None:
    """Upload a version and wait until it can be queried. An interrupted upload goes on when it is repeated.

    Compile on this machine with `lattice models compile` and upload the file, or upload ONNX and calibration samples
    to have the gateway compile.

    Parameters
    ----------
    model
        Its name or its id.
    file
        A compiled model, or an ONNX file.
    calibration
        Samples (.npz or .npy) that an ONNX file is compiled with.
    wait
        Return only when the version is ready or has failed.
    timeout
        Seconds to wait.
    """
    with common.client() as client, stages(common.json) as progress:
        made = client.upload_model(model, file, calibration=calibration, progress=counted(progress))
        if wait:
            made = client.wait_ready(model, made["version"], timeout_s=timeout)
        version = made["version"]
        show(made, common.json, lambda out: out.print(f"{model}: version {version} is {made['state']}.", markup=False))


def counted(progress: Progress) -> Callable[[str, int, int], None]:
    """Progress in numbers as shares of a bar."""
    return lambda stage, done, total: progress(stage, done / max(total, 1))


def list_(*, common: Common = DEFAULT) -> None:
    """List the account's encrypted models and the versions that they run."""
    with common.client() as client:
        found = list(client.list_encrypted_models())
        columns = ("id", "name", "version", "latest", "visibility", "weights")
        rows = [
            (
                str(each["id"]),
                str(each["name"]),
                cell(each.get("version")),
                cell((each.get("latest") or {}).get("state")),
                cell(each.get("visibility")),
                cell(each.get("weights_exposure")),
            )
            for each in found
        ]
        show({"models": found}, common.json, lambda out: table(out, columns, rows))


def versions(model: str, /, *, common: Common = DEFAULT) -> None:
    """List a model's versions, with the reason where one failed.

    Parameters
    ----------
    model
        Its name or its id.
    """
    with common.client() as client:
        found = list(client.model_versions(model))
        columns = ("version", "state", "made", "program", "reason")
        rows = [
            (
                str(each["version"]),
                str(each["state"]),
                when(each.get("created_at_ms")),
                cell(each.get("program_id")),
                cell(each.get("reason")),
            )
            for each in found
        ]
        show({"versions": found}, common.json, lambda out: table(out, columns, rows))


def delete(model: str, /, *, common: Common = DEFAULT) -> None:
    """Delete a model: its tokens open nothing any more and its workers stop.

    Parameters
    ----------
    model
        Its name or its id.
    """
    with common.client() as client:
        client.delete_encrypted_model(model)
        show({"deleted": model}, common.json, lambda out: out.print(f"Deleted {model}.", markup=False))
