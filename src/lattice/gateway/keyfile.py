"""Files that hold one secret each: 0600, made once, complete or absent even when two gateways start together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from lattice.core.errors import LatticeError


def read_or_create(path: Path, make: Callable[[], bytes], *, create: bool = True) -> bytes:
    """The file's bytes; made by `make` on the first start. `config_invalid` where others could read it.

    With `create=False` (the database has accounts already) a missing file is `config_invalid`: a new secret would lock
    out every key or every machine.
    """
    if not path.exists():
        if not create:
            raise LatticeError("config_invalid", f"{path} is missing and the database is not new; restore the backup.")
        _create(path, make())
    if path.stat().st_mode & 0o077:
        raise LatticeError("config_invalid", f"{path} can be read by others; run `chmod 600` on it.")
    return path.read_bytes()


def _create(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)  # fails where another process was first, and never leaves half a file
        except FileExistsError:
            return
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        os.unlink(name)
