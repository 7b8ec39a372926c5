"""`lattice models`: check, compile and describe models that run on encrypted data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from lattice.cli.model_views import (
    DEFAULT,
    Local,
    Progress,
    counted,
    heard,
    identity,
    print_identity,
    print_report,
    stages,
)
from lattice.cli.output import EXIT_FAILED, show, table

if TYPE_CHECKING:
    from rich.console import Console

    from lattice.cli.model_data import Data
    from lattice.fhe.compiler.check import CheckReport
    from lattice.fhe.compiler.compiled import Compiled
    from lattice.fhe.compiler.levels.options import Options


def check(model: str, /, *, common: Local = DEFAULT) -> None:
    """Say whether a model can run encrypted, and list every operator that cannot, with what to use instead.

    Nothing is sent anywhere. Exit status 1 if the model cannot be compiled as it is.

    Parameters
    ----------
    model
        An ONNX file. (A scikit-learn model's file can run code: compile such a model from Python.)
    """
    with common.session():
        from lattice.fhe.compiler.check import check as examine

        found = examine(Path(model))
        answer = {"model": model, **found.to_dict()}
        show(answer, common.json, lambda out: _print_check(out, model, found))
        if not found.supported:
            raise SystemExit(EXIT_FAILED)


def _print_check(out: Console, model: str, found: CheckReport) -> None:
    from rich.text import Text

    if not found.supported:
        out.print(Text(f"{model} cannot run encrypted as it is:", style="bold red"))
        for each in found.unsupported:
            nodes = ", ".join(each.nodes[:8])
            out.print(Text(f"  {each.operator} ({each.count}×: {nodes}): {each.reason}"))
            if each.instead:
                out.print(Text(f"    instead: {each.instead}", style="dim"))
        if not found.unsupported:
            out.print(Text(f"  {found.message}"))
        return
    shape = "×".join(map(str, found.features))
    out.print(Text(f"{model} can run encrypted: {shape} features, {found.results} results", style="bold green"))
    rows = [(each.name, str(each.count), each.support, each.limits) for each in found.operators]
    table(out, ("operator", "count", "where", "limits"), rows)
    out.print(Text(f"\n{found.parameters:,} numbers in these layers, about {found.depth} multiplications in a row:"))
    for layer in found.layers:
        out.print(Text(f"  {layer}"))
    for place, steps in (("before encryption", found.before), ("after decryption", found.after)):
        if steps:
            out.print(Text(f"The client does, {place}: {', '.join(steps)}."))
    for suggestion in found.suggestions:
        out.print(Text(suggestion, style="yellow"))


@Parameter(name="*")
@dataclass(frozen=True)
class Wishes:
    """What the compiler is asked for."""

    goal: Literal["latency", "keys", "throughput"] = "latency"
    "What to keep small: the time of one query, the client's keys, or the time of many samples together."
    batch: int | None = None
    "How many samples one query holds."
    tolerance: float | None = None
    "How much accuracy may be lost, as a part of 1: 0.001 unless you say; the error of numbers: 0.005."
    precision: float | None = None
    "The error that a result may have, beside the results' spread: of noise and of fitted activations."
    allow_inaccurate: Annotated[bool, Parameter(negative=())] = False
    "Compile past the tolerance too; the report says so."
    classes: Annotated[list[str] | None, Parameter(negative=())] = None
    "What the model's classes are called, in the order of its results; repeat the option for each."
    max_key_mb: float | None = None
    "The most megabytes of evaluation keys that a client should need."

    def options(self) -> Options:
        """For the compiler."""
        from lattice.fhe.compiler.levels.options import Goal, Options

        return Options(
            goal=Goal(self.goal),
            batch=self.batch,
            tolerance=self.tolerance,
            precision=self.precision,
            allow_inaccurate=self.allow_inaccurate,
            max_key_bytes=None if self.max_key_mb is None else int(self.max_key_mb * 1e6),
        )


NO_WISHES = Wishes()


def compile_(
    model: str,
    /,
    *,
    calibration: str,
    labels: str | None = None,
    held_out: str | None = None,
    out: str | None = None,
    sign: str | None = None,
    try_: Annotated[int, Parameter(name="--try")] = 10,
    wishes: Wishes = NO_WISHES,
    common: Local = DEFAULT,
) -> None:
    """Compile a model into one file that runs on encrypted data, and report what it will do.

    Refused where the accuracy under encryption would miss that in the clear by more than the tolerance.

    Parameters
    ----------
    model
        An ONNX file.
    calibration
        A few hundred samples as the model takes them: .npz (array x, labels y), .npy or .csv.
    labels
        The name of the labels in the data, or a file with them.
    held_out
        Samples on which accuracy is judged, with labels of the same name; otherwise the calibration samples.
    out
        The file to write; the model's name with .lattice otherwise.
    sign
        A publisher's key, as `lattice models key` makes it; the file is not signed otherwise.
    try_
        On how many samples to run the model really encrypted, for the report.
    """
    with common.session():
        from lattice.cli.publisher import read_signer
        from lattice.fhe.artefact import save
        from lattice.fhe.artefact.files import read_file_report

        signer = read_signer(sign) if sign else None
        with stages(common.json) as progress, heard() as told:
            compiled = _compiled(model, calibration, held_out, labels, try_, wishes, progress)
        path = out or f"{Path(model).stem}.lattice"
        found = save(compiled, path, signer)
        known = read_file_report(path)

        def people(screen: Console) -> None:
            print_report(screen, known)
            screen.print()
            print_identity(screen, found)
            for warning in told:
                screen.print(f"warning: {warning}", style="yellow", markup=False)
            screen.print(f"Wrote {path}", style="bold", markup=False)

        show({"path": path, **identity(found), "report": known.to_dict(), "warnings": told}, common.json, people)


def _compiled(
    model: str,
    calibration: str,
    held_out: str | None,
    labels: str | None,
    count: int,
    wishes: Wishes,
    progress: Progress,
) -> Compiled:
    from lattice.cli.model_data import read_data
    from lattice.fhe.compiler.choices import with_choice
    from lattice.fhe.compiler.compile import compile
    from lattice.fhe.compiler.importers.load import load

    known = read_data(calibration, labels, "calibration_invalid")
    judged = read_data(held_out, labels, "calibration_invalid") if held_out else known
    apart = judged.samples if held_out else None
    imported = with_choice(load(Path(model)), known.samples, judged.labels, wishes.classes)
    compiled = compile(
        imported, known.samples, labels=judged.labels, held_out=apart, options=wishes.options(), progress=progress
    )
    return _tried(compiled, judged, count, progress)


def _tried(compiled: Compiled, data: Data, count: int, progress: Progress) -> Compiled:
    """With the encrypted accuracy of the first samples in the report."""
    if count <= 0:
        return compiled
    from lattice.fhe.measure import timed, with_measured
    from lattice.fhe.simulate import clear

    samples = data.samples.reshape(len(data.samples), *compiled.client.feature_shape)
    some = data._replace(samples=samples).first(max(count, compiled.client.batch))
    found = timed(compiled, some.samples, progress=counted(progress, "run encrypted"))
    return with_measured(compiled, found, clear(compiled, some.samples), some.labels)


def report(
    file: str,
    /,
    *,
    svg: str | None = None,
    trust: Annotated[list[str] | None, Parameter(negative=())] = None,
    common: Local = DEFAULT,
) -> None:
    """Show what a compiled model will do: accuracy, time, keys, parameters, security, layer by layer.

    Parameters
    ----------
    file
        A compiled model.
    svg
        Also write the report as a picture to this file; any browser opens it.
    trust
        A publisher's key who must have signed the file; repeat the option for several.
    """
    with common.session():
        from lattice.cli.publisher import trusted
        from lattice.fhe.artefact import inspect
        from lattice.fhe.artefact.files import read_file_report
        from lattice.fhe.compiler import picture

        found = inspect(file, trust=trusted(trust))
        known = read_file_report(file)
        if svg:
            _write(svg, picture.svg(known))

        def people(out: Console) -> None:
            print_report(out, known)
            out.print()
            print_identity(out, found)
            if svg:
                out.print(f"Wrote {svg}", style="bold", markup=False)

        show({**identity(found), "report": known.to_dict()}, common.json, people)


def _write(path: str, text: str) -> None:
    from lattice.core.errors import LatticeError

    try:
        Path(path).write_text(text, "utf-8")
    except OSError as error:
        raise LatticeError("invalid_request", f"{path} cannot be written: {error.strerror}.") from None
