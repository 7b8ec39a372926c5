"""Where files live on this machine, after the XDG base directory rules."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

APP = "lattice"


def _xdg(environ: Mapping[str, str], variable: str, fallback: str) -> Path:
    given = environ.get(variable, "")
    # The XDG rules say that a relative path in these variables is to be ignored.
    base = Path(given) if os.path.isabs(given) else Path(environ.get("HOME") or Path.home()) / fallback
    return base / APP


def user_config_file(environ: Mapping[str, str] = os.environ) -> Path:
    """The user's own config.toml."""
    return _xdg(environ, "XDG_CONFIG_HOME", ".config") / "config.toml"


def default_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Keys, pairing and allow-list."""
    return _xdg(environ, "XDG_STATE_HOME", ".local/state")


def data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Downloaded models; `LATTICE_DATA_DIR` overrides it."""
    given = environ.get("LATTICE_DATA_DIR")
    return Path(given).expanduser() if given else _xdg(environ, "XDG_DATA_HOME", ".local/share")
