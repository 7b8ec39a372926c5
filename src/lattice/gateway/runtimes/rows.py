"""Row functions of `runtimes` and their credentials. Reachability is not stored: it is computed from `last_seen_ms`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from sqlalchemy import Connection, bindparam, insert, or_, select, update

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.store.schema import bootstrap_tokens, runtimes

Kind = Literal["personal", "hosted"]

_c = runtimes.c
_PUBLIC = [column for column in runtimes.columns if column.name != "credential_hash"]
_INSERT = insert(runtimes)
_BY_ID = select(*_PUBLIC).where(_c.id == bindparam("runtime"))
_BY_CREDENTIAL = select(*_PUBLIC).where(_c.credential_hash == bindparam("hash"))
_REVOKE = (
    update(runtimes)
    .where(_c.id == bindparam("runtime"), _c.revoked_at_ms.is_(None))
    .values(revoked_at_ms=bindparam("now"))
)
_VOID_TOKENS = update(bootstrap_tokens).where(bootstrap_tokens.c.runtime_id == bindparam("runtime")).values(voided=True)
_ANNOUNCE = (
    update(runtimes)
    .where(_c.id == bindparam("runtime"))
    .values(announcement=bindparam("said"), key_configs=bindparam("configs"), last_seen_ms=bindparam("now"))
)
_SEEN = (
    update(runtimes)
    .where(_c.id == bindparam("runtime"), or_(_c.last_seen_ms.is_(None), _c.last_seen_ms < bindparam("seen")))
    .values(last_seen_ms=bindparam("seen"))
)
_VERIFY = update(runtimes).where(_c.id == bindparam("runtime")).values(verified=bindparam("is_verified"))
_PAIR = (
    update(runtimes)
    .where(_c.id == bindparam("runtime"), _c.revoked_at_ms.is_(None))
    .values(
        identity_key=bindparam("identity"),
        credential_hash=bindparam("hash"),
        key_configs=bindparam("configs"),
        pairing=bindparam("paired"),
        verified=bindparam("is_verified"),
        name=bindparam("called"),
    )
)


class RuntimeRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `runtimes`, without its credential. `announcement` and `pairing` are the lead's own encodings."""

    id: str
    account_id: str
    kind: str
    name: str
    identity_key: bytes | None
    key_configs: bytes | None
    announcement: bytes | None
    pairing: bytes | None
    verified: bool
    last_seen_ms: int | None
    revoked_at_ms: int | None
    created_at_ms: int

    @property
    def signed_key_configs(self) -> tuple[bytes, ...]:
        """The encoded signed key configurations, in the order in which the machine announced them."""
        return () if self.key_configs is None else msgspec.msgpack.decode(self.key_configs, type=tuple[bytes, ...])


def pack_key_configs(configs: Sequence[bytes]) -> bytes:
    """The stored form of a list of encoded signed key configurations."""
    return msgspec.msgpack.encode(tuple(configs))


def create_runtime(conn: Connection, account_id: str, kind: Kind, name: str, now_ms: int) -> RuntimeRow:
    """A new, unpaired runtime."""
    row = RuntimeRow(
        id=new_id(Prefix.RUNTIME, now_ms),
        account_id=account_id,
        kind=kind,
        name=name,
        identity_key=None,
        key_configs=None,
        announcement=None,
        pairing=None,
        verified=False,
        last_seen_ms=None,
        revoked_at_ms=None,
        created_at_ms=now_ms,
    )
    conn.execute(_INSERT, {field: getattr(row, field) for field in RuntimeRow.__struct_fields__})
    return row


def get_runtime(
    conn: Connection, runtime_id: str, *, account_id: str | None = None, kind: Kind | None = None
) -> RuntimeRow:
    """The runtime, revoked or not; `personal_lattice_not_found` also for one of another account or kind."""
    row = find_runtime(conn, runtime_id)
    if row is None or account_id not in (None, row.account_id) or kind not in (None, row.kind):
        raise LatticeError("personal_lattice_not_found")
    return row


def find_runtime(conn: Connection, runtime_id: str) -> RuntimeRow | None:
    """The runtime, or None."""
    row = conn.execute(_BY_ID, {"runtime": runtime_id}).mappings().one_or_none()
    return None if row is None else RuntimeRow(**row)


def list_runtimes(
    conn: Connection,
    *,
    account_id: str | None = None,
    kind: Kind | None = None,
    cursor: str | None = None,
    limit: int = 50,
    revoked: bool = False,
) -> list[RuntimeRow]:
    """Runtimes, newest first; without `account_id` everybody's, for the router and the operator."""
    statement = select(*_PUBLIC).order_by(_c.id.desc()).limit(limit)
    if account_id is not None:
        statement = statement.where(_c.account_id == account_id)
    if kind is not None:
        statement = statement.where(_c.kind == kind)
    if cursor is not None:
        statement = statement.where(_c.id < cursor)
    if not revoked:
        statement = statement.where(_c.revoked_at_ms.is_(None))
    return [RuntimeRow(**row) for row in conn.execute(statement).mappings()]


def revoke_runtime(conn: Connection, account_id: str, runtime_id: str, now_ms: int) -> RuntimeRow:
    """Revoke a runtime and its bootstrap tokens for good; doing it again changes nothing."""
    get_runtime(conn, runtime_id, account_id=account_id)
    conn.execute(_REVOKE, {"runtime": runtime_id, "now": now_ms})
    conn.execute(_VOID_TOKENS, {"runtime": runtime_id})
    return get_runtime(conn, runtime_id, account_id=account_id)


def runtime_by_credential(conn: Connection, credential_hash: bytes) -> RuntimeRow:
    """The runtime that presents this credential; `invalid_credential` or `revoked_grant` for none."""
    row = conn.execute(_BY_CREDENTIAL, {"hash": credential_hash}).mappings().one_or_none()
    if row is None:
        raise LatticeError("invalid_credential")
    if row["revoked_at_ms"] is not None:
        raise LatticeError("revoked_grant", "The runtime was revoked.")
    return RuntimeRow(**row)


def pair_runtime(
    conn: Connection,
    row: RuntimeRow,
    *,
    identity_key: bytes,
    credential_hash: bytes,
    key_configs: bytes,
    pairing: bytes | None,
    name: str | None,
) -> RuntimeRow:
    """Bind a machine to the record. Another identity than before, or another pairing, starts unverified."""
    same = row.identity_key == identity_key
    params = {
        "runtime": row.id,
        "identity": identity_key,
        "hash": credential_hash,
        "configs": key_configs,
        "paired": pairing,
        "is_verified": row.verified and same,
        "called": name or row.name,
    }
    if not conn.execute(_PAIR, params).rowcount:
        raise LatticeError("personal_lattice_not_found", "The runtime was revoked.")
    return get_runtime(conn, row.id)


def save_announcement(conn: Connection, runtime_id: str, announcement: bytes, key_configs: bytes, now_ms: int) -> None:
    """Keep what the daemon last said of itself; `key_configs` as `pack_key_configs` makes them."""
    conn.execute(_ANNOUNCE, {"runtime": runtime_id, "said": announcement, "configs": key_configs, "now": now_ms})


def touch_seen(conn: Connection, seen: Iterable[tuple[str, int]]) -> None:
    """Record when runtimes were last seen; never moves a time back."""
    rows = [{"runtime": runtime_id, "seen": seen_ms} for runtime_id, seen_ms in seen]
    if rows:
        conn.execute(_SEEN, rows)


def set_verified(conn: Connection, account_id: str, runtime_id: str, verified: bool = True) -> RuntimeRow:
    """Record that the owner confirmed the machine's word fingerprint, or its pairing's HMAC."""
    get_runtime(conn, runtime_id, account_id=account_id)
    conn.execute(_VERIFY, {"runtime": runtime_id, "is_verified": verified})
    return get_runtime(conn, runtime_id, account_id=account_id)
