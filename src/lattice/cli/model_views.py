"""How the `lattice models` commands print: progress by stage, the report in colour, a file's identity."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from lattice.cli.output import console, reporting

if TYPE_CHECKING:
    from rich.console import Console

    from lattice.fhe.artefact import Inspection
    from lattice.fhe.compiler.report_data import Report

Progress = Callable[[str, float], None]
"""Name of a stage, and how much of it is done, from 0 to 1."""


@Parameter(name="*")
@dataclass(frozen=True)
class Local:
    """Options of every command that needs no gateway."""

    json: Annotated[bool, Parameter(negative=())] = False
    "Print one JSON document for programs."

    @contextmanager
    def session(self) -> Iterator[None]:
        """Errors inside become a message and an exit code; so does a missing package."""
        from lattice.core.errors import LatticeError

        with reporting(self.json):
            try:
                yield
            except ModuleNotFoundError as error:
                if error.name not in ("numpy", "onnx"):
                    raise
                message = f"This needs the package {error.name}: install the extras `encrypted` and `convert`."
                raise LatticeError("backend_unavailable", message) from None


DEFAULT = Local()


@contextmanager
def stages(as_json: bool) -> Iterator[Progress]:
    """A bar for each stage, on standard error, where a person looks on."""
    out = console(stderr=True)
    if as_json or not out.is_terminal:
        yield lambda _name, _share: None
        return
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=out) as bars:
        tasks: dict[str, Any] = {}

        def report(name: str, share: float) -> None:
            if name not in tasks:
                # Without a total the bar pulses: most stages cannot say how far they are.
                tasks[name] = bars.add_task(name, total=None)
            if share > 0:
                bars.update(tasks[name], total=1.0, completed=share)

        yield report


def counted(progress: Progress, name: str) -> Callable[[int, int], None]:
    """A stage that knows how many of how many samples are done."""
    progress(name, 0.0)
    return lambda done, total: progress(name, done / max(total, 1))


def print_report(out: Console, report: Report) -> None:
    """Facts, then tables. Lines are not wrapped: a terminal does that better, and a file needs it not."""
    from rich.text import Text

    from lattice.fhe.compiler.report import aligned, facts, tables

    out.print(Text(report.model, style="bold"))
    for name, value in facts(report):
        out.print(Text.assemble((f"{name:<18}", "dim"), value))
    for shown in tables(report):
        out.print(Text(f"\n{shown.title}", style="bold"))
        for number, line in enumerate(aligned(shown)):
            out.print(Text(line, style="" if number else "dim"))
    for warning in report.warnings:
        out.print(Text(f"warning: {warning}", style="yellow"))


@contextmanager
def heard() -> Iterator[list[str]]:
    """Lattice's own warnings as text, each once, instead of on the screen in the middle of a progress bar."""
    out: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield out
    ours = (warning for warning in caught if warning.category.__module__.startswith("lattice"))
    out += dict.fromkeys(str(warning.message) for warning in ours)


def identity(found: Inspection) -> dict[str, Any]:
    """What a file is, for programs."""
    return {
        "artefact_id": found.artefact_id,
        "program_id": found.program_id,
        "weights_sha256": found.weights_hash,
        "publisher": publisher_text(found.publisher),
        "sizes": found.sizes,
    }


def print_identity(out: Console, found: Inspection) -> None:
    """And for people."""
    from rich.text import Text

    out.print(Text.assemble((f"{'file':<18}", "dim"), f"{found.artefact_id}, {found.program_id}"))
    signed = publisher_text(found.publisher)
    words = f"{signed} ({_words(found.publisher)})" if found.publisher else "nobody: the file is not signed"
    out.print(Text.assemble((f"{'published by':<18}", "dim"), words))


def publisher_text(raw: bytes | None) -> str | None:
    """A publisher's key as it is given to --trust."""
    from lattice.core.ids import b64url

    return None if raw is None else b64url(raw)


def _words(raw: bytes) -> str:
    from lattice.sealing.words import fingerprint_words

    return fingerprint_words(raw)
