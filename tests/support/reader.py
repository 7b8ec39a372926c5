"""A reader who types what a page shows, block after block, and fills in the blanks with what was printed before."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support import docs

BLANKS = ("sk_lat_", "eut_", "wkr_")
"""What a page writes as `eut_…` stands for the last such word that a command printed."""

PREPARED = {"make setup", ". .venv/bin/activate", "lattice up"}
"""Lines that the test's set-up has done in the reader's place."""

_EXPORT = re.compile(r"^export (\w+)=(\S+)", re.MULTILINE)
_SECONDS = 120


class Reader:
    """Has a folder with the repository's examples in it, a home of its own, and `lattice` on the path."""

    def __init__(self, folder: Path, url: str, secret: str) -> None:
        self.folder = folder / "clone"
        self.folder.mkdir()
        (self.folder / "examples").symlink_to(docs.ROOT / "examples")
        self._known = {"sk_lat_": secret}
        self._url = url
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("LATTICE_", "XDG_"))},
            "PATH": os.pathsep.join((str(_commands(folder / "bin")), os.environ["PATH"])),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "HOME": str(folder / "home"),
            "LATTICE_BASE_URL": url,
            "PYTHONWARNINGS": "ignore",
        }

    def read(self, text: str) -> list[str]:
        """Do what each block says; what each printed."""
        return [self._python(code) if language == "python" else self._shell(code) for language, code in runnable(text)]

    def _shell(self, code: str) -> str:
        lines = [line for line in code.splitlines() if line.strip() not in PREPARED]
        script = self._filled("\n".join(lines))
        printed = self._run(["bash", "-euo", "pipefail", "-c", script])
        self._environment |= dict(_EXPORT.findall(script))
        return printed

    def _python(self, code: str) -> str:
        script = self.folder / "ask.py"
        script.write_text(self._filled(code), "utf-8")
        return self._run([sys.executable, str(script)])

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self._environment, capture_output=True, text=True, timeout=_SECONDS
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        for blank in BLANKS:
            for word in re.findall(rf"\b{blank}[\w-]+", done.stdout):
                self._known[blank] = word
        return done.stdout

    def _filled(self, text: str) -> str:
        text = text.replace("http://127.0.0.1:8787", self._url)
        for blank, word in self._known.items():
            text = text.replace(f"{blank}…", word)
        left = re.search(r"\w+_…", text)
        assert left is None, f"nothing printed what belongs in {left and left[0]}"
        return text


def runnable(text: str) -> list[tuple[str, str]]:
    """The blocks that a reader can execute."""
    return [(language, code) for language, code in docs.blocks(text) if language in ("sh", "bash", "python")]


def _commands(folder: Path) -> Path:
    folder.mkdir()
    for name, module in (("lattice", "main"), ("lattice-ctl", "ctl")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lattice.cli.{module} "$@"\n')
        (folder / name).chmod(0o755)
    return folder
