"""Encrypted databases: rows that their owner encrypts and uploads once, and what this device knows of them.

Which bytes an `edb_…` stands for is this device's own note, not the gateway's word: a receipt that is about another
database is refused. `<folder>/databases/<id>.json` holds hashes, no secret.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lattice.client.encrypted.key_folder import write_private
from lattice.client.encrypted.uploads import BytesSource, Memo, Progress, upload
from lattice.client.exchange import Plan, compute
from lattice.client.settings import path_segment
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, is_id

if TYPE_CHECKING:
    from lattice.client.encrypted.session import Session
    from lattice.fhe.artefact.client import ClientView
    from lattice.fhe.keys.secret import SecretKey

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Pin(msgspec.Struct, frozen=True):
    """The SHA-256 of an uploaded database, and the id of the secret that encrypted it where that is known."""

    sha256: str
    key_id: str | None = None


class Pins:
    """The databases that this device uploaded, or was told of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "databases"

    def put(self, database: str, pin: Pin) -> None:
        """Note what an id stands for."""
        if not is_id(Prefix.DATABASE, database) or not _SHA256.fullmatch(pin.sha256):
            raise LatticeError("invalid_request", "A database is pinned by its id, `edb_…`, and its SHA-256 in hex.")
        write_private(self._folder / f"{database}.json", msgspec.json.encode(pin))

    def get(self, database: str) -> Pin:
        """What is noted; `database_unknown` where nothing is."""
        try:
            if is_id(Prefix.DATABASE, database):
                return msgspec.json.decode((self._folder / f"{database}.json").read_bytes(), type=Pin)
        except (OSError, msgspec.MsgspecError):
            pass
        raise LatticeError("database_unknown")

    def drop(self, database: str) -> None:
        """Forget it."""
        if is_id(Prefix.DATABASE, database):
            (self._folder / f"{database}.json").unlink(missing_ok=True)


def expected_database(pins: Pins, view: ClientView, secret: SecretKey, database: str | None) -> str | None:
    """The SHA-256 that a receipt must name; refuses what could only give a wrong answer, before anything is sent."""
    if (view.database is None) != (database is None):
        says = "searches in an encrypted database: name one" if database is None else "takes no encrypted database"
        raise LatticeError("invalid_request", f"The model {says}.")
    if database is None:
        return None
    pin = pins.get(database)
    if pin.key_id not in (None, secret.key_id):
        raise LatticeError("keys_mismatch", "The database is encrypted under another secret than this device's.")
    return pin.sha256


def encrypted_rows(view: ClientView, secret: SecretKey, rows: Any) -> bytes:
    """A bundle of the rows' ciphertexts."""
    from lattice.fhe.client_side import encrypt
    from lattice.fhe.serialise.bundle import write_bundle
    from lattice.fhe.serialise.ciphertexts import encode_ciphertext

    if view.database is None:
        raise LatticeError("invalid_request", "The model does not search in a database of the user's.")
    made = encrypt(view.database, view.params, secret, rows)
    return write_bundle([encode_ciphertext(each, view.params) for each in made])


def upload_database(session: Session, rows: Any, progress: Progress) -> Plan[str]:
    """Encrypt rows, upload them once, note their hash; the id to query with."""
    model = yield from session.view()
    keys = yield from session.ensure()
    source = BytesSource((yield from compute(lambda: encrypted_rows(model.view, keys.secret, rows))))
    memo = Memo(session.folder / "uploads")
    identity = yield from upload(session.context, "database", source, memo, progress, "upload rows")
    made = yield from session.context.post_json(
        "/encrypted-databases",
        {"upload_id": identity},
        idempotency_key=session.context.new_key(),
        replay_safe=True,
    )
    database = str(made["id"])
    session.pins.put(database, Pin(source.sha256(), keys.secret.key_id))
    return database


def list_databases(session: Session) -> Plan[list[dict[str, Any]]]:
    """What the gateway has of this user's."""
    found = yield from session.context.get_json("/encrypted-databases")
    return list(found.get("data", []))


def delete_database(session: Session, database: str) -> Plan[None]:
    """End it at the gateway, and forget it here."""
    yield from session.context.delete(f"/encrypted-databases/{path_segment(database)}")
    session.pins.drop(database)


class Databases:
    """`client.databases`: the user's encrypted databases for this model."""

    def __init__(self, session: Session, run: Callable[[Plan[Any]], Any]) -> None:
        self._session, self._run = session, run

    def list(self) -> list[dict[str, Any]]:
        """Every one, newest first; the ids and hashes are the gateway's word."""
        found: list[dict[str, Any]] = self._run(list_databases(self._session))
        return found

    def delete(self, database: str) -> None:
        """Delete one. Queries that wait for a worker fail with `database_missing`."""
        self._run(delete_database(self._session, database))

    def pin(self, database: str, sha256: str) -> None:
        """Say which bytes an id stands for, as another device of yours that uploaded it shows them."""
        self._session.pins.put(database, Pin(sha256))

    def sha256(self, database: str) -> str:
        """The hash to pin on another device; `database_unknown` where this one does not know it."""
        return self._session.pins.get(database).sha256


class AsyncDatabases:
    """The asynchronous twin of `Databases`."""

    def __init__(self, session: Session, run: Callable[[Plan[Any]], Awaitable[Any]]) -> None:
        self._session, self._run = session, run

    async def list(self) -> list[dict[str, Any]]:
        """As `Databases.list`."""
        found: list[dict[str, Any]] = await self._run(list_databases(self._session))
        return found

    async def delete(self, database: str) -> None:
        """As `Databases.delete`."""
        await self._run(delete_database(self._session, database))

    async def pin(self, database: str, sha256: str) -> None:
        """As `Databases.pin`."""
        self._session.pins.put(database, Pin(sha256))

    async def sha256(self, database: str) -> str:
        """As `Databases.sha256`."""
        return self._session.pins.get(database).sha256
