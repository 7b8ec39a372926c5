"""Secret keys on disk: only ever encrypted, in a folder of the user, one for each model line of a gateway.

    wrapping.key        32 random bytes, 0600: what seals the secrets where no passphrase and no keyring does
    keyring.lock        held by whoever makes the keyring's entry
    <digest>/secret.key the secret, sealed (`lattice.fhe.keys.store_format`)
    <digest>/keys.bundle public and evaluation keys until the gateway has them: they are not secret
    <digest>/record.json what was registered

A wrapping key beside the secret protects against a copied file, a backup of one folder, and logs; against somebody who
reads the whole home folder only a passphrase or a keyring helps.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from lattice.core.errors import LatticeError

if TYPE_CHECKING:
    from lattice.fhe.keys.secret import SecretKey

WRAPPING_BYTES = 32
_NEW = ".new-"
STORE_VARIABLE = "LATTICE_KEY_STORE"
STORES = ("file", "keyring")


class Record(msgspec.Struct, frozen=True):
    """What was registered with the gateway. `keys_hash` is the SHA-256 of the uploaded bundle.

    `replaces` is the set that the next registration ends, where that has not happened yet.
    """

    keys_id: str
    key_id: str
    evaluation_keys: str | None = None
    keys_hash: str | None = None
    replaces: str | None = None


class Wrapping:
    """How secrets are sealed: a passphrase, a key that was handed in, one of the system's keyring, or the folder's own.

    `keyring` None: as LATTICE_KEY_STORE says.
    """

    def __init__(
        self,
        folder: Path,
        passphrase: str | None = None,
        wrapping_key: bytes | None = None,
        keyring: bool | None = None,
    ) -> None:
        self._keyring = _keyring_wanted() if keyring is None else keyring
        if [passphrase is not None, wrapping_key is not None, self._keyring].count(True) > 1:
            message = "A secret is sealed by a passphrase, by a wrapping key or by the keyring's, not by two of them."
            raise LatticeError("secret_locked", message)
        self._folder, self._passphrase, self._key = folder, passphrase, wrapping_key

    def __repr__(self) -> str:
        return "Wrapping()"

    def seal(self, secret: SecretKey) -> bytes:
        """Encrypt."""
        from lattice.fhe.keys import store_format

        if self._passphrase is not None:
            return store_format.seal_with_passphrase(secret, self._passphrase)
        return store_format.seal_with_key(secret, self._key or self._own_key())

    def open(self, data: bytes) -> SecretKey:
        """Decrypt; `secret_locked` where this is not what it was sealed with."""
        from lattice.fhe.keys import store_format

        if self._passphrase is not None:
            return store_format.open_with_passphrase(data, self._passphrase)
        return store_format.open_with_key(data, self._key or self._own_key())

    def _own_key(self) -> bytes:
        if self._keyring:
            from lattice.client.encrypted.os_keyring import wrapping_key

            self._key = wrapping_key(self._folder)
            return self._key
        path = self._folder / "wrapping.key"
        if not path.exists():
            # Linked into place, so that of two processes that start together both use the one that came first.
            written = _temporary(path, os.urandom(WRAPPING_BYTES))
            with suppress(FileExistsError):
                os.link(written, path)
            os.unlink(written)
        if os.name == "posix" and path.stat().st_mode & 0o077:
            raise LatticeError("config_invalid", f"{path} opens secret keys and others can read it: chmod 600 it.")
        return path.read_bytes()


class KeyFolder:
    """The files of one model line for one user at one gateway."""

    def __init__(self, root: Path, origin: str, model: str, user: str, keys_id: str, wrapping: Wrapping) -> None:
        name = hashlib.sha256(f"{origin}\n{model}\n{user}\n{keys_id}".encode()).hexdigest()[:32]
        self.path = root / name
        self._wrapping = wrapping

    def lock(self) -> int:
        """Wait until no other process or thread of the user is at these files; to be given to `unlock`."""
        descriptor = _lock(self.path / "lock")
        for left in self.path.glob(f"{_NEW}*"):  # of a process that was killed: only who holds the lock writes
            left.unlink(missing_ok=True)
        return descriptor

    @staticmethod
    def unlock(descriptor: int) -> None:
        """Let the next one in."""
        os.close(descriptor)

    @property
    def bundle(self) -> Path:
        """Keys on their way to the gateway."""
        return self.path / "keys.bundle"

    def record(self) -> Record | None:
        """What is known; None where nothing is, or it is damaged: then keys are registered again."""
        try:
            return msgspec.json.decode((self.path / "record.json").read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError):
            return None

    def write_record(self, record: Record) -> None:
        """Replace it."""
        self._write("record.json", msgspec.json.encode(record))

    def secret(self) -> SecretKey | None:
        """Open the secret; None where there is none."""
        try:
            data = (self.path / "secret.key").read_bytes()
        except FileNotFoundError:
            return None
        return self._wrapping.open(data)

    def write_secret(self, secret: SecretKey) -> None:
        """Seal and store."""
        self._write("secret.key", self._wrapping.seal(secret))

    def write_bundle(self, data: bytes) -> None:
        """Keep the keys until they are registered."""
        self._write("keys.bundle", data)

    def drop_bundle(self) -> None:
        """They are registered."""
        with suppress(FileNotFoundError):
            self.bundle.unlink()

    def _write(self, name: str, data: bytes) -> None:
        write_private(self.path / name, data)


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """A turn that processes and threads of the user take; released when its holder ends, however it does."""
    descriptor = _lock(path)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    with suppress(ImportError):  # no fcntl on Windows: there the rename alone has to do
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


def _keyring_wanted() -> bool:
    store = os.environ.get(STORE_VARIABLE) or STORES[0]
    if store not in STORES:
        raise LatticeError("config_invalid", f"{STORE_VARIABLE} is {' or '.join(STORES)}, nothing else.")
    return store == "keyring"


def write_private(path: Path, data: bytes) -> None:
    """Replace a file that only its user may read, whole or not at all."""
    os.replace(_temporary(path, data), path)


def _temporary(path: Path, data: bytes) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=_NEW)  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(name)
        raise
    return name
