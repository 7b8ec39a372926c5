"""Access tokens: what an end user queries one model with. Made once, shown once, stored as an HMAC."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, bindparam, insert, or_, select, update

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, SecretPrefix, new_id, new_secret
from lattice.gateway.identity.pepper import Pepper
from lattice.gateway.store.encrypted_schema import access_tokens, encrypted_models

PREFIX_LENGTH = 12

_c = access_tokens.c
_PUBLIC = [column for column in access_tokens.columns if column.name != "secret_hash"]
_INSERT = insert(access_tokens)
_BY_HASH = (
    select(*_PUBLIC)
    .join(encrypted_models, encrypted_models.c.id == _c.model_id)
    .where(_c.secret_hash == bindparam("hash"), encrypted_models.c.deleted_at_ms.is_(None))
)
_BY_ID = select(*_PUBLIC).where(
    _c.id == bindparam("token"), _c.account_id == bindparam("account"), _c.model_id == bindparam("model")
)
_OWN = update(access_tokens).where(_c.id == bindparam("token"), _c.revoked_at_ms.is_(None))
_REVOKE = _OWN.values(revoked_at_ms=bindparam("now"))
_ASSIGN = _OWN.values(user=bindparam("end_user"))
_TOUCH = (
    update(access_tokens)
    .where(_c.id == bindparam("token"), or_(_c.last_used_at_ms.is_(None), _c.last_used_at_ms < bindparam("used")))
    .values(last_used_at_ms=bindparam("used"))
)


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a token may do, and whose it is. Holds nothing secret."""

    id: str
    model_id: str
    account_id: str
    user: str
    prefix: str
    name: str
    requests_per_minute: int | None
    budget_micro: int | None
    spent_micro: int
    queries: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    last_used_at_ms: int | None
    created_at_ms: int

    def require_live(self, now_ms: int) -> None:
        """Raise `revoked_grant` or `access_token_expired`."""
        if self.revoked_at_ms is not None:
            raise LatticeError("revoked_grant")
        if self.expires_at_ms is not None and self.expires_at_ms <= now_ms:
            raise LatticeError("access_token_expired")

    def require_user(self) -> str:
        """The end user that it is assigned to, or `token_unassigned`."""
        if not self.user:
            raise LatticeError("token_unassigned")
        return self.user

    def state(self, now_ms: int) -> str:
        """`active`, `revoked` or `expired`."""
        if self.revoked_at_ms is not None:
            return "revoked"
        return "expired" if self.expires_at_ms is not None and self.expires_at_ms <= now_ms else "active"


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """What a token is to be."""

    account_id: str
    model_id: str
    name: str
    user: str = ""
    requests_per_minute: int | None = None
    budget_micro: int | None = None
    expires_at_ms: int | None = None


def create_token(conn: Connection, pepper: Pepper, new: NewToken, now_ms: int) -> tuple[TokenRecord, str]:
    """Store a token; returns its record and the secret, which cannot be had again."""
    if new.expires_at_ms is not None and new.expires_at_ms <= now_ms:
        raise LatticeError("invalid_request", "`expires_at_ms` is in the past.")
    secret = new_secret(SecretPrefix.ACCESS_TOKEN)
    record = TokenRecord(
        id=new_id(Prefix.ACCESS_TOKEN, now_ms),
        prefix=secret[:PREFIX_LENGTH],
        spent_micro=0,
        queries=0,
        revoked_at_ms=None,
        last_used_at_ms=None,
        created_at_ms=now_ms,
        **msgspec.structs.asdict(new),
    )
    columns: dict[str, Any] = msgspec.structs.asdict(record)
    conn.execute(_INSERT, columns | {"secret_hash": pepper.hash(secret)})
    return record, secret


def find_token(conn: Connection, secret_hash: bytes) -> TokenRecord | None:
    """The token with this hash, live or not; None once its model is deleted."""
    row = conn.execute(_BY_HASH, {"hash": secret_hash}).mappings().one_or_none()
    return None if row is None else _record(row)


def get_token(conn: Connection, account_id: str, model_id: str, token_id: str) -> TokenRecord:
    """A token of this model of this account, or `not_found`."""
    params = {"token": token_id, "account": account_id, "model": model_id}
    row = conn.execute(_BY_ID, params).mappings().one_or_none()
    if row is None:
        raise LatticeError("not_found", "The model has no access token with that id.")
    return _record(row)


def list_tokens(
    conn: Connection, account_id: str, model_id: str, cursor: str | None = None, limit: int = 50
) -> list[TokenRecord]:
    """A model's tokens, revoked ones too, newest first."""
    statement = select(*_PUBLIC).where(_c.account_id == account_id, _c.model_id == model_id)
    if cursor is not None:
        statement = statement.where(_c.id < cursor)
    return [_record(row) for row in conn.execute(statement.order_by(_c.id.desc()).limit(limit)).mappings()]


def assign_token(conn: Connection, account_id: str, model_id: str, token_id: str, user: str) -> TokenRecord:
    """Give it to an end user ('' takes it back). The keys that the earlier user registered stay that user's."""
    get_token(conn, account_id, model_id, token_id).require_live(0)
    conn.execute(_ASSIGN, {"token": token_id, "end_user": user})
    return get_token(conn, account_id, model_id, token_id)


def revoke_token(conn: Connection, account_id: str, model_id: str, token_id: str, now_ms: int) -> TokenRecord:
    """Revoke it for good; again changes nothing."""
    get_token(conn, account_id, model_id, token_id)
    conn.execute(_REVOKE, {"token": token_id, "now": now_ms})
    return get_token(conn, account_id, model_id, token_id)


def touch_tokens(conn: Connection, used: Iterable[tuple[str, int]]) -> None:
    """Record when tokens were last used; never moves a time back."""
    rows = [{"token": token_id, "used": used_ms} for token_id, used_ms in used]
    if rows:
        conn.execute(_TOUCH, rows)


def _record(row: RowMapping) -> TokenRecord:
    return TokenRecord(**dict(row))
