"""What every `lattice-ctl` command shares: the --json and --config options, and reading the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lattice.cli.output import reporting

if TYPE_CHECKING:
    from lattice.runtime.settings import DaemonSettings
    from lattice.runtime.state import StateDir


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    json: Annotated[bool, Parameter(negative=())] = False
    "Print one JSON document for programs."
    config: Path | None = None
    "Use this config.toml instead of LATTICE_CONFIG_PATH or your own one."

    @contextmanager
    def session(self) -> Iterator[tuple[DaemonSettings, StateDir]]:
        """The settings and the state directory; errors inside become a message and an exit code."""
        with reporting(self.json):
            from lattice.runtime.settings_file import load_settings
            from lattice.runtime.state import StateDir

            settings = load_settings(self.config).settings
            yield settings, StateDir(settings.state_dir)


DEFAULT = Common()
