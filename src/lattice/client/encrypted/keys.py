"""The keys of one device: found, or made, stored and registered; and a secret that two devices share.

Each device has a secret of its own unless it was given another one's, and a set of evaluation keys at the gateway that
belongs to it. A device replaces its own set and no other.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from lattice.client.encrypted.key_folder import KeyFolder, Record
from lattice.client.encrypted.uploads import FileSource, Memo, Progress, silent, upload
from lattice.client.exchange import Plan, compute
from lattice.client.settings import path_segment
from lattice.core.errors import LatticeError
from lattice.core.ids import b64url, unb64url

if TYPE_CHECKING:
    from lattice.client.encrypted.session import ModelView, Session
    from lattice.fhe.artefact.client import ClientView
    from lattice.fhe.keys.secret import SecretKey

DEVICE_VARIABLE = "LATTICE_DEVICE"
MAX_DEVICE = 100


class Keys(NamedTuple):
    """Keys that are registered, and the secret that they belong to."""

    secret: SecretKey
    evaluation_keys: str
    keys_hash: str
    keys_id: str


class Exported(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A device's secret under a passphrase, with the set that is registered for it; `secret` is base64url."""

    version: int
    keys_id: str
    evaluation_keys: str
    keys_hash: str
    secret: str


def device_name(given: str | None = None) -> str:
    """What the gateway and the user's other devices see of this one: LATTICE_DEVICE, or the computer's name."""
    name = given if given is not None else os.environ.get(DEVICE_VARIABLE) or platform.node()
    return "".join(each for each in name if each.isprintable()).strip()[:MAX_DEVICE].strip()


# --- finding and registering ---------------------------------------------------------------------------------


def ensure(session: Session, progress: Progress = silent, *, replace: bool = False) -> Plan[Keys]:
    """Keys for the version that is queried now."""
    model = yield from session.view()
    session.keys = yield from keys_of(session, model, progress, replace=replace)
    return session.keys


def keys_of(session: Session, model: ModelView, progress: Progress = silent, *, replace: bool = False) -> Plan[Keys]:
    """Keys for one version, which the gateway has and whose secret is here; those that differ in weights share them."""
    known = session.rings.get(model.view.keys_id)
    if known is not None and not replace:
        return known
    folder = session.key_folder(model)
    held = yield from compute(folder.lock)
    try:
        record = folder.record()
        secret = None if replace else (yield from compute(folder.secret))
        listed = yield from session.context.get_json("/evaluation-keys")
        if secret is None or record is None or not registered(record, listed):
            secret, record = yield from _register(session, model, folder, secret, listed, progress)
        keys = session.rings[model.view.keys_id] = _keys(secret, record)
        return keys
    finally:
        folder.unlock(held)


def registered(record: Record, listed: dict[str, Any]) -> bool:
    """Whether the gateway's list has this device's set, with the very bytes that were uploaded."""
    own = (record.evaluation_keys, record.keys_hash)
    return None not in own and own in [(item.get("id"), item.get("sha256")) for item in listed.get("data", [])]


def _register(
    session: Session,
    model: ModelView,
    folder: KeyFolder,
    secret: SecretKey | None,
    listed: dict[str, Any],
    progress: Progress,
) -> Plan[tuple[SecretKey, Record]]:
    record = folder.record()
    replaces = None if record is None else record.evaluation_keys or record.replaces
    _require_room(model.view, listed, replaces)
    if secret is None or not folder.bundle.exists():
        old = secret
        secret = yield from compute(lambda: make_keys(model.view, folder, old, progress, replaces))
    source, memo = FileSource(folder.bundle), Memo(session.folder / "uploads")
    sha256 = yield from compute(source.sha256)
    identity = yield from upload(session.context, "evaluation_keys", source, memo, progress, "upload keys")
    body: dict[str, Any] = {"upload_id": identity, "device": session.device, "replaces": replaces}
    if model.version is not None:
        body["version"] = model.version
    key = session.context.new_key()
    made = yield from session.context.post_json("/evaluation-keys", body, idempotency_key=key, replay_safe=True)
    record = Record(model.view.keys_id, secret.key_id, str(made["id"]), sha256)
    folder.write_record(record)
    folder.drop_bundle()
    return secret, record


def _require_room(view: ClientView, listed: dict[str, Any], replaces: str | None) -> None:
    """Nobody should make and send hundreds of megabytes to hear that there is no place for them."""
    others = [item for item in listed.get("data", []) if item.get("id") != replaces]
    taken = sum(item.get("keys_id") == view.keys_id for item in others)
    if taken >= listed.get("most", taken + 1):
        raise LatticeError("too_many_keys")


def make_keys(
    view: ClientView, folder: KeyFolder, secret: SecretKey | None, progress: Progress, replaces: str | None = None
) -> SecretKey:
    """A secret (unless one is there), stored before anything else, and the keys that the model needs.

    What is replaced is noted with it, so that whoever goes on after a crash replaces it too.
    """
    from lattice.fhe.ckks.evaluation_keys import EvaluationKeySet
    from lattice.fhe.keys.evaluation import KeyGenerator
    from lattice.fhe.serialise.bundle import write_bundle
    from lattice.fhe.serialise.keys import encode_evaluation_keys, encode_public_key

    generator = KeyGenerator(view.params)
    if secret is None:
        secret = generator.secret_key()
        folder.drop_bundle()  # of an earlier secret, whose upload did not end
        folder.write_record(Record(view.keys_id, secret.key_id, replaces=replaces))
        folder.write_secret(secret)
    made = []
    progress("make keys", 0, len(view.keys))
    for number, spec in enumerate(view.keys, 1):
        made.append(generator.evaluation_key(secret, spec))
        progress("make keys", number, len(view.keys))
    keys = EvaluationKeySet(view.params, made)
    public = encode_public_key(generator.public_key(secret), view.params)
    folder.write_bundle(write_bundle([public, encode_evaluation_keys(keys)]))
    return secret


def _keys(secret: SecretKey, record: Record) -> Keys:
    assert record.evaluation_keys is not None and record.keys_hash is not None  # noqa: PT018
    return Keys(secret, record.evaluation_keys, record.keys_hash, record.keys_id)


# --- one secret on two devices -------------------------------------------------------------------------------


def export_secret(session: Session, passphrase: str) -> Plan[bytes]:
    """This device's secret, sealed, and the name of its registered set."""
    from lattice.fhe.keys import store_format

    keys = yield from ensure(session)
    sealed = yield from compute(lambda: store_format.seal_with_passphrase(keys.secret, passphrase))
    return msgspec.json.encode(Exported(1, keys.keys_id, keys.evaluation_keys, keys.keys_hash, b64url(sealed)))


def import_secret(session: Session, data: bytes, passphrase: str, *, replace: bool) -> Plan[str]:
    """Take another device's secret and share its set; the set's id.

    Nothing in the file beside the secret needs to be believed: the set is shared only if the gateway lists it with that
    hash, and is otherwise registered anew.
    """
    shared = _read_export(data)
    model = yield from session.view()
    if shared.keys_id != model.view.keys_id:
        raise LatticeError("keys_mismatch", "The file's secret is for keys other than those that the model needs.")
    secret = yield from compute(lambda: _open(shared, passphrase))
    folder = session.key_folder(model)
    held = yield from compute(folder.lock)
    try:
        old = yield from compute(folder.secret)
        own = folder.record()
        if old is not None and old.key_id != secret.key_id and not replace:
            raise LatticeError(
                "invalid_request", "This device has a secret of its own; only `replace` puts another in its place."
            )
        folder.drop_bundle()
        folder.write_record(Record(shared.keys_id, secret.key_id, shared.evaluation_keys, shared.keys_hash))
        yield from compute(lambda: folder.write_secret(secret))
    finally:
        folder.unlock(held)
    session.forget_keys()
    if own is not None and own.evaluation_keys not in (None, shared.evaluation_keys):
        yield from _delete_if_there(session, str(own.evaluation_keys))  # nobody has its secret any more
    return (yield from ensure(session)).evaluation_keys


def _read_export(data: bytes) -> Exported:
    try:
        shared = msgspec.json.decode(data, type=Exported)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise LatticeError("blob_invalid", "This is not a secret that a device exported.") from None
    if shared.version != 1:
        raise LatticeError("blob_invalid", f"The export has version {shared.version}; this program reads version 1.")
    return shared


def _open(shared: Exported, passphrase: str) -> SecretKey:
    from lattice.fhe.keys import store_format

    try:
        sealed = unb64url(shared.secret)
    except (ValueError, UnicodeError):
        raise LatticeError("blob_invalid", "This is not a secret that a device exported.") from None
    return store_format.open_with_passphrase(sealed, passphrase)


# --- listing and deleting ------------------------------------------------------------------------------------


def list_keys(session: Session) -> Plan[list[dict[str, Any]]]:
    """The user's sets, each with whether it is this device's."""
    model = yield from session.view()
    record = session.key_folder(model).record()
    own = None if record is None else record.evaluation_keys
    listed = yield from session.context.get_json("/evaluation-keys")
    return [{**item, "this_device": item.get("id") == own} for item in listed.get("data", [])]


def delete_keys(session: Session, evaluation_keys: str) -> Plan[None]:
    """End a set at the gateway."""
    yield from session.context.delete(f"/evaluation-keys/{path_segment(evaluation_keys)}")
    session.forget_keys()  # what is left is read from disk again


def _delete_if_there(session: Session, evaluation_keys: str) -> Plan[None]:
    try:
        yield from delete_keys(session, evaluation_keys)
    except LatticeError as error:
        if error.code != "not_found":
            raise


class DeviceKeys:
    """`client.keys`: this device's keys for the model, and the user's other sets."""

    def __init__(self, session: Session, run: Callable[[Plan[Any]], Any]) -> None:
        self._session, self._run = session, run

    def ensure(self, progress: Progress = silent, *, replace: bool = False) -> str:
        """Make sure that the gateway has this device's evaluation keys and this device their secret; the keys' id.

        Nothing is done where they are there. `progress(stage, done, total)` is called while keys are made and
        uploaded. An upload that was interrupted goes on where it stopped. `replace` makes a new secret and puts its
        keys in the place of this device's; those of the user's other devices stay.
        """
        with self._session.lock:
            keys: Keys = self._run(ensure(self._session, progress, replace=replace))
            return keys.evaluation_keys

    def list(self) -> list[dict[str, Any]]:
        """What is registered for this user, by device; `this_device` tells which set is used here."""
        found: list[dict[str, Any]] = self._run(list_keys(self._session))
        return found

    def delete(self, evaluation_keys: str) -> None:
        """Delete a set at the gateway; its secret stays where it is, and what is encrypted under it stays readable."""
        with self._session.lock:
            self._run(delete_keys(self._session, evaluation_keys))

    def export(self, passphrase: str) -> bytes:
        """This device's secret for another device of the user, sealed under a passphrase (scrypt, AES-256-GCM)."""
        with self._session.lock:
            data: bytes = self._run(export_secret(self._session, passphrase))
            return data

    def import_secret(self, data: bytes, passphrase: str, *, replace: bool = False) -> str:
        """Share the secret and the set of the device that exported; the set's id.

        A secret that this device has already is kept unless `replace`, which ends the set that belongs to it: databases
        and results under it cannot be read any more.
        """
        with self._session.lock:
            found: str = self._run(import_secret(self._session, data, passphrase, replace=replace))
            return found


class AsyncDeviceKeys:
    """The asynchronous twin of `DeviceKeys`; `progress` is called from threads too."""

    def __init__(self, session: Session, run: Callable[[Plan[Any]], Awaitable[Any]]) -> None:
        self._session, self._run = session, run

    async def ensure(self, progress: Progress = silent, *, replace: bool = False) -> str:
        """As `DeviceKeys.ensure`."""
        async with self._session.turn:
            keys: Keys = await self._run(ensure(self._session, progress, replace=replace))
            return keys.evaluation_keys

    async def list(self) -> list[dict[str, Any]]:
        """As `DeviceKeys.list`."""
        found: list[dict[str, Any]] = await self._run(list_keys(self._session))
        return found

    async def delete(self, evaluation_keys: str) -> None:
        """As `DeviceKeys.delete`."""
        async with self._session.turn:
            await self._run(delete_keys(self._session, evaluation_keys))

    async def export(self, passphrase: str) -> bytes:
        """As `DeviceKeys.export`."""
        async with self._session.turn:
            data: bytes = await self._run(export_secret(self._session, passphrase))
            return data

    async def import_secret(self, data: bytes, passphrase: str, *, replace: bool = False) -> str:
        """As `DeviceKeys.import_secret`."""
        async with self._session.turn:
            found: str = await self._run(import_secret(self._session, data, passphrase, replace=replace))
            return found
