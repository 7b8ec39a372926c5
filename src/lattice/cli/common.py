"""What the `lattice` commands share: the --json and --gateway options, and a client that closes itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lattice.cli.output import reporting

if TYPE_CHECKING:
    from lattice.client.management import ManagementClient


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Options of every command."""

    json: Annotated[bool, Parameter(negative=())] = False
    "Print one JSON document for programs."
    gateway: str | None = None
    "The gateway's address; LATTICE_BASE_URL, or http://127.0.0.1:8787, otherwise."

    @contextmanager
    def client(self) -> Iterator[ManagementClient]:
        """A client with the key of LATTICE_API_KEY; errors inside become a message and an exit code.

        There is no option for the key: other users of the machine can read command lines.
        """
        with reporting(self.json):
            from lattice.client.management import ManagementClient

            with ManagementClient(self.gateway) as client:
                yield client


DEFAULT = Common()


def when(milliseconds: object) -> str:
    """A time for people, in UTC; empty for none."""
    if not isinstance(milliseconds, int):
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def cell(value: object) -> str:
    """A table cell: nothing for None, comma-separated lists, the text of the rest."""
    if value is None:
        return ""
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)
