"""Which version a new query runs on: the newest that its ciphertexts and keys fit and that a worker serves, or will.

A client says for which version it encrypted. Another one may evaluate that only if it is interchangeable: the client
would have made the same ciphertexts for it and reads its answers in the same way.
"""

from __future__ import annotations

import hashlib

import msgspec
from sqlalchemy import Connection, bindparam, select

from lattice.core.errors import LatticeError
from lattice.gateway.encrypted.evaluation_key_rows import KeysRow, fitting_keys, get_keys
from lattice.gateway.encrypted.model_rows import find_model
from lattice.gateway.encrypted.token_rows import TokenRecord
from lattice.gateway.encrypted.version_rows import VersionRow, get_version
from lattice.gateway.store.schema import hardware_classes
from lattice.gateway.workers import billing
from lattice.gateway.workers.rows import lately_exhausted
from lattice.gateway.workers.scaling import read_scaling
from lattice.gateway.workers.standing import Standing, current, standings

_PRICE = select(hardware_classes.c.micro_per_second).where(hardware_classes.c.name == bindparam("called"))


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for beside its body. `version` is the one that its ciphertexts were made for."""

    evaluation_keys: str | None
    verify: int
    database: str | None
    version: int | None = None

    def mac_body(self, sha256: bytes) -> bytes:
        """What an idempotency key stands for: these members and the body's hash."""
        return hashlib.sha256(msgspec.json.encode(self)).digest() + sha256


class Target(msgspec.Struct, frozen=True):
    """Where a query goes."""

    version: VersionRow
    keys: KeysRow


def choose(conn: Connection, token: TokenRecord, wanted: Wanted) -> Target:
    """The version and the keys. Raises `model_not_ready`, `version_replaced`, `keys_missing`, `keys_mismatch`,
    `worker_unavailable` or `credits_exhausted`.
    """
    found = standings(conn, token.model_id)
    if not found:
        raise LatticeError("model_not_ready")
    fitting = _made_for(conn, token.model_id, found, wanted.version)
    if not fitting:
        raise _replaced(found)
    targets = [(each, keys) for each in fitting if (keys := _keys(conn, token, each.version, wanted.evaluation_keys))]
    if not targets:
        raise _no_keys(wanted)
    each, keys = max(targets, key=lambda pair: pair[0].rank(wanted.verify))
    if each.coming < wanted.verify:
        if any(other.coming >= wanted.verify for other in found if other not in fitting):
            raise _replaced(found)
        _require_start(conn, token, wanted.verify)
    return Target(each.version, keys)


def exhausted() -> LatticeError:
    """`credits_exhausted` as an end user may hear it: whose turn it is, and nothing of the account."""
    return LatticeError("credits_exhausted", "The model's provider has run out of credits and has to top up.")


# --- private -------------------------------------------------------------------------------------------------


def _made_for(conn: Connection, model_id: str, found: list[Standing], version: int | None) -> list[Standing]:
    if version is None:
        return found
    asked = get_version(conn, model_id, version)
    return [each for each in found if each.version.interchangeable(asked)]


def _replaced(found: list[Standing]) -> LatticeError:
    return LatticeError("version_replaced", details={"version": current(found).version.number})


def _keys(conn: Connection, token: TokenRecord, version: VersionRow, keys_id: str | None) -> KeysRow | None:
    assert version.keys_hash is not None
    if keys_id is None:
        return fitting_keys(conn, token.model_id, token.user, version.keys_hash)
    keys = get_keys(conn, token.model_id, token.user, keys_id)
    return keys if (keys.keys_hash, keys.parameters_id) == (version.keys_hash, version.parameters_id) else None


def _no_keys(wanted: Wanted) -> LatticeError:
    if wanted.evaluation_keys is None:
        return LatticeError("keys_missing")
    return LatticeError("keys_mismatch", "The evaluation keys are not those that the model's version needs.")


def _require_start(conn: Connection, token: TokenRecord, needed: int) -> None:
    """Nobody serves it: may the query start a worker by itself, of the newest version?"""
    model = find_model(conn, token.model_id)
    if model is None:
        raise LatticeError("not_found", "The model was deleted.")
    scaling = read_scaling(model.settings)
    if scaling.autostart and scaling.max_workers >= needed:
        price = conn.execute(_PRICE, {"called": scaling.hardware_class}).scalar() or 0
    else:
        stopped = lately_exhausted(conn, model.id)
        if stopped is None or billing.covers(conn, model.account_id, stopped.price_micro_per_second):
            message = None if needed == 1 else "`verify=2` needs two workers of the model."
            raise LatticeError("worker_unavailable", message, retry_after_ms=2_000)
        price = stopped.price_micro_per_second
    if not billing.covers(conn, model.account_id, price):
        raise exhausted()
