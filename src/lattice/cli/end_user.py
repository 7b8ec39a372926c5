"""What the commands of an end user share: the access token's client, and where its keys lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from lattice.cli.output import reporting

if TYPE_CHECKING:
    from lattice.client.encrypted.query import QueryClient

PASSPHRASE = "LATTICE_KEY_PASSPHRASE"  # noqa: S105


@Parameter(name="*")
@dataclass(frozen=True)
class EndUser:
    """Options of every command of an end user."""

    json: Annotated[bool, Parameter(negative=())] = False
    "Print one JSON document for programs."
    gateway: str | None = None
    "The gateway's address; LATTICE_BASE_URL, or http://127.0.0.1:8787, otherwise."
    keys: Path | None = None
    "The folder of the keys; the user's own otherwise."

    @contextmanager
    def client(self) -> Iterator[QueryClient]:
        """A client with the token of LATTICE_ACCESS_TOKEN; errors inside become a message and an exit code."""
        with reporting(self.json):
            from lattice.client.encrypted.query import QueryClient

            passphrase = os.environ.get(PASSPHRASE) or None
            with QueryClient(base_url=self.gateway, folder=self.keys, passphrase=passphrase) as client:
                yield client


DEFAULT = EndUser()
