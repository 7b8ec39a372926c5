"""`lattice-ctl config show` and `lattice-ctl service`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lattice.cli.ctl_common import DEFAULT, Common
from lattice.cli.output import reporting, show, table

if TYPE_CHECKING:
    from rich.console import Console

_UNIT = """[Unit]
Description=Lattice daemon: a local model for your own apps
After=network-online.target
Wants=network-online.target

[Service]
Type=simple
ExecStart={command}
Restart=on-failure
RestartSec=5
# Wrong settings or a running twin do not get better by starting again.
RestartPreventExitStatus=2 3
TimeoutStopSec=40
NoNewPrivileges=yes
PrivateTmp=yes

[Install]
WantedBy=default.target
"""


def show_settings(*, common: Common = DEFAULT) -> None:
    """Print every setting with its value and where it came from. Secrets are masked.

    Example: lattice-ctl config show --json
    """
    with reporting(common.json):
        from lattice.runtime.settings_file import describe, load_settings

        loaded = load_settings(common.config)
        rows = describe(loaded)

        def people(out: Console) -> None:
            out.print(f"file: {loaded.file or 'none'}\n")
            table(out, ("setting", "value", "source"), [(r.key, _text(r.value), r.source) for r in rows])

        show({"file": str(loaded.file) if loaded.file else None, "settings": rows}, common.json, people)


def service(*, common: Common = DEFAULT) -> None:
    """Print a systemd user unit that starts the daemon at login.

    Example: lattice-ctl service > ~/.config/systemd/user/lattice.service && systemctl --user enable --now lattice
    """
    with reporting(common.json):
        command = [sys.executable, "-m", "lattice.cli.ctl", "daemon", "run"]
        if common.config is not None:
            command += ["--config", str(Path(common.config).expanduser().absolute())]
        unit = _UNIT.format(command=shlex.join(command))
        show({"unit": unit}, common.json, lambda out: out.out(unit, end="", highlight=False))


def _text(value: Any) -> str:
    return "" if value is None else str(value)
