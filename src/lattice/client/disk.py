"""The key store's file: one JSON document, folder 0700, file 0600, written atomically under a lock."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from lattice.client.settings import default_store_dir
from lattice.client.store import KeyStore, StoreState
from lattice.core.errors import LatticeError

FILE_NAME = "keystore.json"
LOCK_NAME = "keystore.lock"
MAX_FILE = 16 * 1024 * 1024


class DiskStore:
    """State in a folder of the user. Nothing is created until something has to be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._thread_lock = threading.RLock()
        self._cached: tuple[tuple[int, int, int], StoreState] | None = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / FILE_NAME

    def read(self) -> StoreState:
        """The current state; empty where there is no file. A damaged or exposed file is an error, never overwritten."""
        with self._thread_lock:
            try:
                with self.path.open("rb") as file:
                    found = os.fstat(file.fileno())
                    stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
                    if self._cached and self._cached[0] == stamp:
                        return self._cached[1]
                    self._check_mode(found.st_mode)
                    state = self._decode(file.read(MAX_FILE))
            except FileNotFoundError:
                return StoreState()
            except OSError as error:
                raise LatticeError("config_invalid", f"{self.path} cannot be read: {error.strerror}.") from None
            self._cached = (stamp, state)
            return state

    def update(self, change: Callable[[StoreState], StoreState]) -> StoreState:
        """Replace the file by its change, holding the lock of every process of this user."""
        try:
            with self._thread_lock, self._process_lock():
                before = self.read()
                after = change(before)
                if after is not before:
                    self._write(after)
                return after
        except OSError as error:
            raise LatticeError("config_invalid", f"{self.folder} cannot be written: {error.strerror}.") from None

    @contextmanager
    def _process_lock(self) -> Iterator[None]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with suppress(ImportError):  # no fcntl on Windows: there the rename alone has to do
                import fcntl

                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _write(self, state: StoreState) -> None:
        descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=".keystore-")  # mkstemp makes it 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(state)))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
        self._cached = None

    def _check_mode(self, mode: int) -> None:
        if os.name == "posix" and mode & 0o077:
            raise LatticeError(
                "config_invalid", f"{self.path} holds private keys and others can read it: chmod 600 it."
            )

    def _decode(self, content: bytes) -> StoreState:
        try:
            state = msgspec.json.decode(content, type=StoreState)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise LatticeError(
                "config_invalid", f"{self.path} is damaged. Move it away: machines must then be paired again."
            ) from None
        if state.version != 1:
            raise LatticeError("config_invalid", f"{self.path} is of a newer Lattice (version {state.version}).")
        return state


def disk_key_store(folder: Path | None = None) -> KeyStore:
    """The user's key store, or one in `folder`."""
    return KeyStore(DiskStore(folder or default_store_dir()))
