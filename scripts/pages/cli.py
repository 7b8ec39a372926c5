"""`docs/reference/cli-*.md`: the help of both command lines, with the example from each command's docstring."""

from __future__ import annotations

import inspect
import re
import sys
from unittest import mock

from cyclopts import App

from lattice.cli.output import exit_code
from lattice.core.errors import LatticeError, catalogue
from scripts.pages.markdown import heading, table

_LEAF = re.compile(r"^(#+) (\S+(?: \S+)+)\n\n```console\n.*?```\n", re.MULTILINE | re.DOTALL)
_CONTENTS = re.compile(r"## Table of Contents\n.*?(?=\n\*\*Commands\*\*)", re.DOTALL)

_EXIT_MEANINGS = {
    0: "It worked.",
    1: "It failed for a reason that has no number of its own; the code is in the message.",
    2: "The command, a setting or an argument is wrong.",
    3: "This machine is not ready: no daemon, no pairing, or no model.",
    4: "The gateway or its database does not answer.",
    5: "The key is wrong or lacks a scope.",
    6: "Do not trust what you got: a pairing, an identity, a receipt, a reply or a model file is not the right one.",
    130: "Ctrl-C.",
}

_INTRO = """
{purpose}

Every command takes `--help` and `--json`. With `--json` it prints one JSON document on standard output, errors too.
"""


def lattice_page() -> str:
    """`lattice`."""
    from lattice.cli.main import app

    purpose = "The command line of apps and operators. It reads `LATTICE_BASE_URL` and `LATTICE_API_KEY`."
    return _page(app, purpose, "src/lattice/cli/main.py and the commands' modules")


def ctl_page() -> str:
    """`lattice-ctl`."""
    from lattice.cli.ctl import app

    purpose = "The command line of the person who owns a machine. It needs no key and no gateway extra."
    return _page(app, purpose, "src/lattice/cli/ctl.py and the commands' modules")


def _page(app: App, purpose: str, source: str) -> str:
    name = app.name[0]
    with mock.patch.object(sys, "argv", [name]):  # or usage lines would name this script
        text = app.generate_docs(output_format="markdown")
    body = text.split("\n", 1)[1]  # the title is ours
    body = re.sub(r"\n{3,}", "\n\n", _CONTENTS.sub("", body))
    body = _LEAF.sub(lambda match: match[0] + _example(app, match[2].split()[1:], body), body)
    body = re.sub(r"^Example: ([^`\n]+)$", r"Example: `\1`", body, flags=re.MULTILINE)
    return heading(f"`{name}`", source, _INTRO.format(purpose=purpose)) + body.rstrip() + "\n\n" + _exit_statuses()


def _example(app: App, path: list[str], body: str) -> str:
    """The docstring's example, where the help shows something shorter than the docstring."""
    _, apps, _ = app.parse_commands(path)
    found = re.search(r"Example: (.+)", inspect.getdoc(apps[-1].default_command) or "")
    return f"\nExample: `{found[1].strip()}`\n" if found and found[0] not in body else ""


def _exit_statuses() -> str:
    codes: dict[int, list[str]] = {}
    for code in catalogue():
        codes.setdefault(exit_code(LatticeError(code)), []).append(code)
    rows = [
        (str(number), meaning, "" if number == 1 else ", ".join(f"`{code}`" for code in codes.get(number, ())))
        for number, meaning in _EXIT_MEANINGS.items()
    ]
    missing = set(codes) - set(_EXIT_MEANINGS)
    if missing:
        raise SystemExit(f"scripts/pages/cli.py must say what exit status {sorted(missing)} means")
    return "## Exit statuses\n\n" + table(("status", "meaning", "codes"), rows)
