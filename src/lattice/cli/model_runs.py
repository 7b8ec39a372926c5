"""`lattice models simulate` and `run`: a compiled model on data, with and without real encryption, on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lattice.cli.model_views import DEFAULT, Local, counted, heard, stages
from lattice.cli.output import show, table

if TYPE_CHECKING:
    from rich.console import Console

    from lattice.cli.model_data import Data
    from lattice.fhe.answers import Answer
    from lattice.fhe.compiler.compiled import Compiled

_SHOWN = 6
"""Of numbers, a table cell has so many."""


def simulate(
    file: str,
    /,
    *,
    data: str,
    labels: str | None = None,
    count: int | None = None,
    seed: int = 0,
    trust: Annotated[list[str] | None, Parameter(negative=())] = None,
    common: Local = DEFAULT,
) -> None:
    """Run a compiled model with the noise that encryption would add, but without encryption: fast, on many samples.

    Parameters
    ----------
    file
        A compiled model.
    data
        Samples: .npz (array x, labels y), .npy or .csv.
    labels
        The name of the labels in the data, or a file with them.
    count
        How many samples; all otherwise.
    seed
        Which noise is drawn.
    trust
        A publisher's key who must have signed the file; repeat the option for several.
    """
    with common.session():
        from lattice.fhe import simulate as runs

        model, known = _read(file, data, labels, count, trust)
        with stages(common.json) as progress, heard() as told:
            noisy = runs.simulate(model, known.samples, seed=seed, progress=counted(progress, "simulate"))
            clear = runs.clear(model, known.samples, progress=counted(progress, "run in the clear"))
        answer = {"samples": len(known.samples), **_compared(noisy, clear, known), "warnings": told}

        def people(out: Console) -> None:
            _print_comparison(out, answer, "simulated")

        show(answer, common.json, people)


def run(
    file: str,
    /,
    *,
    data: str,
    labels: str | None = None,
    count: int = 10,
    strict: Annotated[bool, Parameter(negative=())] = False,
    trust: Annotated[list[str] | None, Parameter(negative=())] = None,
    common: Local = DEFAULT,
) -> None:
    """Run a compiled model really encrypted, client and evaluator in this process, beside the same model in the clear.

    Parameters
    ----------
    file
        A compiled model.
    data
        Samples: .npz (array x, labels y), .npy or .csv.
    labels
        The name of the labels in the data, or a file with them.
    count
        How many samples.
    strict
        Refuse samples outside the calibrated range instead of warning of them.
    trust
        A publisher's key who must have signed the file; repeat the option for several.
    """
    with common.session():
        from lattice.fhe.measure import timed
        from lattice.fhe.simulate import clear as run_clear

        model, known = _read(file, data, labels, count, trust)
        with stages(common.json) as progress, heard() as told:
            found = timed(model, known.samples, strict=strict, progress=counted(progress, "run encrypted"))
            clear = run_clear(model, known.samples)
        answer = {
            "samples": len(known.samples),
            "encrypted": _predictions(found.answer),
            "clear": _predictions(clear),
            "truth": None if known.labels is None else known.labels.tolist(),
            **_compared(found.answer, clear, known),
            "milliseconds": found.times,
            "warnings": told,
        }

        def people(out: Console) -> None:
            _print_rows(out, answer)
            _print_comparison(out, answer, "encrypted")
            times = ", ".join(f"{name} {_time(value)}" for name, value in found.times.items())
            out.print(f"{'times':<18}{times}", markup=False)

        show(answer, common.json, people)


def _read(
    file: str, data: str, labels: str | None, count: int | None, trust: list[str] | None
) -> tuple[Compiled, Data]:
    """The model, and samples in its shape."""
    from lattice.cli.model_data import read_data
    from lattice.cli.publisher import trusted
    from lattice.core.errors import LatticeError
    from lattice.fhe.artefact import load

    model = load(file, trust=trusted(trust))
    known = read_data(data, labels).first(count)
    shape = (len(known.samples), *model.client.feature_shape)
    try:
        return model, known._replace(samples=known.samples.reshape(shape))
    except ValueError:
        message = f"The samples have the shape {known.samples.shape}; the model takes {shape[1:]} for each."
        raise LatticeError("input_invalid", message) from None


def _compared(answer: Answer, clear: Answer, data: Data) -> dict[str, Any]:
    """Errors, and shares of right labels where there are labels."""
    import numpy as np

    from lattice.fhe.measure import share_of_equal

    error = answer.values - clear.values
    known: dict[str, float | None] = {
        "max_error": float(np.abs(error).max()),
        "deviation": float(np.sqrt((error**2).mean())),
    }
    if clear.labels is not None:
        known["agreement"] = share_of_equal(answer, clear.labels)
    if data.labels is not None:
        known |= {"accuracy": share_of_equal(answer, data.labels), "clear_accuracy": share_of_equal(clear, data.labels)}
    return {name: value for name, value in known.items() if value is not None}


def _predictions(answer: Answer) -> list[Any]:
    """Labels where there are any, else the numbers."""
    import numpy as np

    found = answer.values if answer.labels is None else answer.labels
    out: list[Any] = np.asarray(found).tolist()
    return out


def _print_rows(out: Console, answer: dict[str, Any]) -> None:
    truth = answer["truth"]
    columns = ("sample", "encrypted", "clear", *(("truth",) if truth else ()))
    rows = [
        (str(number), _cell(encrypted), _cell(clear), *((_cell(truth[number]),) if truth else ()))
        for number, (encrypted, clear) in enumerate(zip(answer["encrypted"], answer["clear"], strict=True))
    ]
    table(out, columns, rows)
    out.print()


def _cell(value: Any) -> str:
    if isinstance(value, list):
        more = " …" if len(value) > _SHOWN else ""
        return ", ".join(_cell(item) for item in value[:_SHOWN]) + more
    return f"{value:.5f}" if isinstance(value, float) else str(value)


def _print_comparison(out: Console, answer: dict[str, Any], how: str) -> None:
    from rich.text import Text

    if "accuracy" in answer:
        shares = f"{answer['accuracy']:.2%} {how}, {answer['clear_accuracy']:.2%} in the clear"
        out.print(f"{'accuracy':<18}{shares}, {answer['samples']} samples", markup=False)
    if "agreement" in answer:
        out.print(f"{'agreement':<18}{answer['agreement']:.2%} of the labels are those in the clear", markup=False)
    spread = f"{answer['max_error']:.1e} the largest, {answer['deviation']:.1e} standard deviation"
    out.print(f"{'error':<18}{spread}", markup=False)
    for warning in answer["warnings"]:
        out.print(Text(f"warning: {warning}", style="yellow"))


def _time(milliseconds: float) -> str:
    from lattice.fhe.compiler.report import time_text

    return time_text(milliseconds)
