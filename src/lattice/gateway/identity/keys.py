"""Developer keys: made once, shown once, stored as an HMAC."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, insert, or_, select, update

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, SecretPrefix, new_id, new_secret
from lattice.gateway.identity.pepper import Pepper
from lattice.gateway.identity.scopes import MANAGING_SCOPES, OAUTH_SCOPES, Scope
from lattice.gateway.store.schema import api_keys

PREFIX_LENGTH = 12

_c = api_keys.c
_PUBLIC = [column for column in api_keys.columns if column.name != "secret_hash"]
_INSERT = insert(api_keys)
_BY_HASH = select(*_PUBLIC).where(_c.secret_hash == bindparam("hash"))
_BY_ID = select(*_PUBLIC).where(_c.id == bindparam("key"), _c.account_id == bindparam("account"))
_REVOKE = (
    update(api_keys)
    .where(_c.id == bindparam("key"), _c.account_id == bindparam("account"), _c.revoked_at_ms.is_(None))
    .values(revoked_at_ms=bindparam("now"))
)
_TOUCH = (
    update(api_keys)
    .where(_c.id == bindparam("key"), or_(_c.last_used_at_ms.is_(None), _c.last_used_at_ms < bindparam("used")))
    .values(last_used_at_ms=bindparam("used"))
)


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a credential may do, and whose it is. Holds nothing secret: `prefix` is what a list shows of the key."""

    id: str
    account_id: str
    prefix: str
    name: str
    scopes: frozenset[str]
    allowed_models: frozenset[str] | None
    spend_cap_micro: int | None
    requests_per_minute: int | None
    expires_at_ms: int | None
    revoked_at_ms: int | None
    last_used_at_ms: int | None
    created_at_ms: int

    def require_scope(self, scope: Scope) -> None:
        """Raise `insufficient_scopes`, naming the scope in `needs`."""
        if scope not in self.scopes:
            raise LatticeError("insufficient_scopes", f"This needs the scope {scope}.", details={"needs": str(scope)})

    def require_any_scope(self, scopes: Iterable[Scope]) -> None:
        """Raise `insufficient_scopes` unless the key has one of them."""
        if self.scopes.isdisjoint(scopes):
            needs = " or ".join(str(scope) for scope in scopes)
            raise LatticeError("insufficient_scopes", f"This needs the scope {needs}.", details={"needs": needs})

    def allows_model(self, model: str) -> bool:
        """Whether the key may name this model; a canonical id counts in either of its spellings."""
        if self.allowed_models is None:
            return True
        canonical = model.removeprefix("lattice:")
        return (
            model in self.allowed_models
            or canonical in self.allowed_models
            or f"lattice:{canonical}" in self.allowed_models
        )

    def require_model(self, model: str) -> None:
        """Raise `model_not_allowed` where the key is limited to other models."""
        if not self.allows_model(model):
            raise LatticeError("model_not_allowed")

    def require_live(self, now_ms: int) -> None:
        """Raise `revoked_grant` for a revoked key, `invalid_credential` for an expired one."""
        if self.revoked_at_ms is not None:
            raise LatticeError("revoked_grant")
        if self.expires_at_ms is not None and self.expires_at_ms <= now_ms:
            raise LatticeError("invalid_credential", "The key has expired.")


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is to be."""

    account_id: str
    name: str
    scopes: frozenset[str]
    allowed_models: frozenset[str] | None = None
    spend_cap_micro: int | None = None
    requests_per_minute: int | None = None
    expires_at_ms: int | None = None

    def validate(self, now_ms: int) -> None:
        """Raise `invalid_request` for a key that could not be used or whose limits would bind nobody."""
        unknown = self.scopes - frozenset(Scope)
        if unknown or self.scopes & OAUTH_SCOPES or not self.scopes:
            raise LatticeError("invalid_request", "`scopes` must name one or more scopes that a key can have.")
        limited = self.allowed_models is not None or self.spend_cap_micro is not None
        if limited and self.scopes & MANAGING_SCOPES:
            raise LatticeError(
                "invalid_request", "A key that may make keys cannot have `spend_cap_micro` or `allowed_models`."
            )
        if self.expires_at_ms is not None and self.expires_at_ms <= now_ms:
            raise LatticeError("invalid_request", "`expires_at_ms` is in the past.")


def create_key(conn: Connection, pepper: Pepper, new: NewKey, now_ms: int) -> tuple[KeyRecord, str]:
    """Store a key; returns its record and the secret, which cannot be had again."""
    new.validate(now_ms)
    secret = new_secret(SecretPrefix.DEVELOPER_KEY)
    record = KeyRecord(
        id=new_id(Prefix.KEY, now_ms),
        prefix=secret[:PREFIX_LENGTH],
        revoked_at_ms=None,
        last_used_at_ms=None,
        created_at_ms=now_ms,
        **{field: getattr(new, field) for field in NewKey.__struct_fields__},
    )
    columns = {field: getattr(record, field) for field in KeyRecord.__struct_fields__}
    columns |= {
        "secret_hash": pepper.hash(secret),
        "scopes": _set_to_text(record.scopes),
        "allowed_models": None if record.allowed_models is None else _set_to_text(record.allowed_models),
    }
    conn.execute(_INSERT, columns)
    return record, secret


def authenticate(conn: Connection, secret_hash: bytes, now_ms: int) -> KeyRecord:
    """The live key with this hash; raises `invalid_credential` or `revoked_grant`."""
    record = find_key(conn, secret_hash)
    if record is None:
        raise LatticeError("invalid_credential")
    record.require_live(now_ms)
    return record


def find_key(conn: Connection, secret_hash: bytes) -> KeyRecord | None:
    """The key with this hash, live or not."""
    row = conn.execute(_BY_HASH, {"hash": secret_hash}).mappings().one_or_none()
    return None if row is None else _record(row)


def get_key(conn: Connection, account_id: str, key_id: str) -> KeyRecord:
    """A key of this account, or `not_found`."""
    row = conn.execute(_BY_ID, {"key": key_id, "account": account_id}).mappings().one_or_none()
    if row is None:
        raise LatticeError("not_found", "This account has no key with that id.")
    return _record(row)


def list_keys(conn: Connection, account_id: str, cursor: str | None = None, limit: int = 50) -> list[KeyRecord]:
    """An account's keys, revoked ones too, newest first."""
    statement = select(*_PUBLIC).where(_c.account_id == account_id).order_by(_c.id.desc()).limit(limit)
    if cursor is not None:
        statement = statement.where(_c.id < cursor)
    return [_record(row) for row in conn.execute(statement).mappings()]


def revoke_key(conn: Connection, account_id: str, key_id: str, now_ms: int) -> KeyRecord:
    """Revoke a key for good; revoking it again changes nothing. `not_found` for another account's."""
    conn.execute(_REVOKE, {"key": key_id, "account": account_id, "now": now_ms})
    return get_key(conn, account_id, key_id)


def touch_keys(conn: Connection, used: Iterable[tuple[str, int]]) -> None:
    """Record when keys were last used; never moves a time back."""
    rows = [{"key": key_id, "used": used_ms} for key_id, used_ms in used]
    if rows:
        conn.execute(_TOUCH, rows)


def _record(row: RowMapping) -> KeyRecord:
    models = row["allowed_models"]
    return KeyRecord(
        **dict(row)
        | {
            "scopes": _text_to_set(row["scopes"]),
            "allowed_models": None if models is None else _text_to_set(models),
        }
    )


def _set_to_text(values: frozenset[str]) -> str:
    return msgspec.json.encode(sorted(values)).decode()


def _text_to_set(text: str) -> frozenset[str]:
    return msgspec.json.decode(text, type=frozenset[str])
