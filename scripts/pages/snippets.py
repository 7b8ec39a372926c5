"""Code in the hand-written pages: each block under a `<!-- snippet: path -->` mark is a copy of that file."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.pages.places import ROOT

_BLOCK = re.compile(r"<!-- snippet: (?P<path>\S+) -->\n```(?P<language>\w+)\n.*?^```$", re.MULTILINE | re.DOTALL)

_LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json"}


def filled(text: str) -> str:
    """The page with every marked block replaced by its file."""
    return _BLOCK.sub(lambda block: _rendered(block["path"]), text)


def named(text: str) -> list[str]:
    """The files that a page shows."""
    return [block["path"] for block in _BLOCK.finditer(text)]


def _rendered(path: str) -> str:
    content = (ROOT / path).read_text("utf-8").rstrip()
    return f"<!-- snippet: {path} -->\n```{_LANGUAGES[Path(path).suffix]}\n{content}\n```"
