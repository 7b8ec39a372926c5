"""The daemon's directory: mode 0700, files 0600, each written whole or not at all, and one daemon at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lattice.core.errors import LatticeError

T = TypeVar("T")


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` so that a crash leaves the old content or the new, and nobody else can read it meanwhile."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync_directory(path.parent)


class StateDir:
    """Typed access to the state files of one machine identity."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def prepare(self) -> None:
        """Make the directory, private to its owner; refuse one that belongs to somebody else."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        info = self.root.stat()
        if info.st_uid != os.geteuid():
            raise LatticeError("config_invalid", f"The state directory {self.root} belongs to another user.")
        if info.st_mode & 0o077:
            self.root.chmod(0o700)

    def path(self, name: str) -> Path:
        """Where the state file `name` is."""
        return self.root / name

    def read_bytes(self, name: str) -> bytes | None:
        """The file's content, or None where there is none."""
        try:
            return self.path(name).read_bytes()
        except FileNotFoundError:
            return None

    def write_bytes(self, name: str, data: bytes) -> None:
        """Replace the file atomically, mode 0600."""
        self.prepare()
        write_atomically(self.path(name), data)

    def read(self, name: str, type_: type[T]) -> T | None:
        """Decode a JSON state file; one that can't be read is an error, never silently replaced."""
        data = self.read_bytes(name)
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=type_)
        except msgspec.DecodeError:
            message = f"The state file {self.path(name)} is damaged. Restore it from a backup, or move it away."
            raise LatticeError("config_invalid", message) from None

    def write(self, name: str, value: Any) -> None:
        """Encode as JSON and replace the file."""
        self.write_bytes(name, msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n")

    def remove(self, name: str) -> None:
        """Delete a state file if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.path(name).unlink()

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Changes when the file is replaced (inode and time), None while there is none; costs one stat call."""
        try:
            info = os.stat(self.path(name))
        except FileNotFoundError:
            return None
        return info.st_ino, info.st_mtime_ns

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the machine's single-instance lock; the kernel drops it when the process dies."""
        self.prepare()
        descriptor = os.open(self.path("daemon.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise LatticeError("daemon_already_running", f"A daemon already uses {self.root}.") from None
            os.truncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())  # for `daemon stop`; whether one runs, only the lock says
            yield
        finally:
            os.close(descriptor)

    def locked(self) -> bool:
        """Whether a daemon holds the lock now."""
        try:
            descriptor = os.open(self.path("daemon.lock"), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
