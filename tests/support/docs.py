"""Reading the repository's Markdown: links and anchors, commands, and the scripts that pages show."""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from cyclopts import App

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_SKIPPED = {".venv", ".git", "node_modules", "build", "out", ".pytest_cache"}
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_OPERATORS = {"&&", "||", "|", ">", ";"}


def pages() -> list[Path]:
    """Every Markdown page of the repository."""
    found = (path for path in ROOT.rglob("*.md") if not _SKIPPED & set(path.relative_to(ROOT).parts))
    return sorted(found)


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links and pictures that lie in the repository."""
    prose = _INLINE.sub("", _FENCE.sub("", page.read_text("utf-8")))
    for pair in _LINK.findall(prose):
        target = pair[0] or pair[1]
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    prose = _FENCE.sub("", page.read_text("utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(prose)}


def section(text: str, heading: str) -> str:
    """A page's part under a heading of the second level."""
    _, found, rest = text.partition(f"\n## {heading}\n")
    assert found, f"there is no heading {heading!r}"
    return rest.partition("\n## ")[0]


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and content of each block of code, in order."""
    yield from _FENCE.findall(text)


def shell_commands(text: str) -> Iterator[list[str]]:
    """The `lattice` and `lattice-ctl` commands in a page's shell blocks, each as its tokens."""
    for language, block in _FENCE.findall(text):
        if language in ("sh", "bash", "console"):
            for line in block.replace("\\\n", " ").splitlines():
                yield from _commands(line)


def inline_commands(text: str) -> Iterator[list[str]]:
    """The commands that prose names in inline code."""
    for code in _INLINE.findall(_FENCE.sub("", text)):
        if code.startswith(("lattice ", "lattice-ctl ")):
            yield from _commands(code)


def _commands(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars="|&;<>")
    lexer.commenters = "#"
    lexer.whitespace_split = True
    command: list[str] = []
    for token in [*lexer, ";"]:
        if token not in _OPERATORS:
            command.append(token)
            continue
        while command and re.fullmatch(r"\w+=.*", command[0]):
            del command[0]
        if command and command[0] in ("lattice", "lattice-ctl"):
            yield command
        command = []


def app_of(name: str) -> App:
    """The command line of that name."""
    from lattice.cli import ctl, main

    return {"lattice": main.app, "lattice-ctl": ctl.app}[name]


def exists(command: list[str]) -> bool:
    """Whether the words of a command name a command or a group; its arguments are not looked at."""
    _, apps, rest = app_of(command[0]).parse_commands(command[1:])
    return apps[-1].default_command is not None or not [word for word in rest if not word.startswith("-")]


def run_script(script: Path, environment: dict[str, str]) -> str:
    """Run a script as a reader would and return what it printed. In this process: starting Python for each is slow."""
    printed = io.StringIO()
    with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(printed):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as ended:
            raise AssertionError(f"{script.name} gave up: {ended}") from ended
    return printed.getvalue()
