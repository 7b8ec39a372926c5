"""Writes the generated pages and the pictures, and puts the snippets' files into the pages that show them.

`python -m scripts.generate_docs` writes; with `--check` it writes nothing and fails where a page is stale.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import structlog

from scripts.draw_flow import svg
from scripts.draw_report import svg as report_svg
from scripts.pages import cli, errors, model_operators, relay, rest, sdk, settings, snippets
from scripts.pages.places import DOCS, ROOT

GENERATED: dict[str, Callable[[], str]] = {
    "cli-lattice.md": cli.lattice_page,
    "cli-lattice-ctl.md": cli.ctl_page,
    "settings-gateway.md": settings.gateway_page,
    "settings-daemon.md": settings.daemon_page,
    "errors.md": errors.page,
    "model-operators.md": model_operators.page,
    "python-sdk.md": sdk.page,
    "rest.md": rest.page,
    "relay-protocol.md": relay.page,
}
"""The pages under docs/reference/ that nobody edits."""


def written_pages() -> Iterator[Path]:
    """Every hand-written Markdown page of the repository that may show snippets."""
    yield from sorted(ROOT.glob("*.md"))
    generated = {DOCS / "reference" / name for name in GENERATED}
    yield from (path for path in sorted(DOCS.rglob("*.md")) if path not in generated)


def current() -> dict[Path, str]:
    """What every page should hold now."""
    # Nobody's own settings may show in the pages, and no configured database may be opened for them.
    own = {name: value for name, value in os.environ.items() if not name.startswith("LATTICE_")}
    with mock.patch.dict(os.environ, own, clear=True):
        pages = {DOCS / "reference" / name: make() for name, make in GENERATED.items()}
    pages |= {path: snippets.filled(path.read_text("utf-8")) for path in written_pages()}
    pages[DOCS / "pictures" / "flow.svg"] = svg()
    pages[DOCS / "pictures" / "report.svg"] = report_svg()
    return pages


def stale() -> dict[Path, str]:
    """The pages that differ from what they should hold, with that."""
    return {path: text for path, text in current().items() if not path.exists() or path.read_text("utf-8") != text}


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit status."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    differing = stale()
    for path, text in differing.items():
        name = path.relative_to(ROOT)
        if "--check" in arguments:
            print(f"{name} is stale: run `make docs`")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            print(f"wrote {name}")
    return 1 if differing and "--check" in arguments else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
