"""Bootstrap tokens: single-use, ten minutes, stored as an HMAC. The same machine may redeem one again while it lives,
so that a crash between redemption and save loses nothing."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, bindparam, insert, or_, select, update

from lattice.core.clock import MINUTE_MS
from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, new_id
from lattice.gateway.runtimes.rows import RuntimeRow, get_runtime, pack_key_configs, pair_runtime
from lattice.gateway.store.schema import bootstrap_tokens

LIFE_MS = 10 * MINUTE_MS

_c = bootstrap_tokens.c
_INSERT = insert(bootstrap_tokens)
_BY_HASH = select(bootstrap_tokens).where(_c.token_hash == bindparam("hash"))
_VOID = update(bootstrap_tokens).where(_c.token_hash == bindparam("hash")).values(voided=True)
_USE = (
    update(bootstrap_tokens)
    .where(
        _c.id == bindparam("token"),
        _c.voided.is_(False),
        or_(_c.redeemed_by.is_(None), _c.redeemed_by == bindparam("identity")),
    )
    .values(redeemed_by=bindparam("identity"), redeemed_at_ms=bindparam("now"))
)


class BootstrapRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `bootstrap_tokens`."""

    id: str
    runtime_id: str
    token_hash: bytes
    app_key: bytes | None
    app_key_mac: bytes | None
    expires_at_ms: int
    redeemed_at_ms: int | None
    redeemed_by: bytes | None
    voided: bool
    created_at_ms: int


def mint_bootstrap(
    conn: Connection,
    runtime: RuntimeRow,
    token_hash: bytes,
    app_key: bytes | None,
    app_key_mac: bytes | None,
    now_ms: int,
) -> BootstrapRow:
    """Record a new token for a runtime that is not revoked."""
    if runtime.revoked_at_ms is not None:
        raise LatticeError("personal_lattice_not_found", "The runtime was revoked.")
    row = BootstrapRow(
        id=new_id(Prefix.BOOTSTRAP, now_ms),
        runtime_id=runtime.id,
        token_hash=token_hash,
        app_key=app_key,
        app_key_mac=app_key_mac,
        expires_at_ms=now_ms + LIFE_MS,
        redeemed_at_ms=None,
        redeemed_by=None,
        voided=False,
        created_at_ms=now_ms,
    )
    conn.execute(_INSERT, {field: getattr(row, field) for field in BootstrapRow.__struct_fields__})
    return row


def find_bootstrap(conn: Connection, token_hash: bytes, identity_key: bytes, now_ms: int) -> BootstrapRow:
    """The token, if this identity may redeem it now: `bootstrap_token_invalid`, `_expired` or `_used` otherwise."""
    found = conn.execute(_BY_HASH, {"hash": token_hash}).mappings().one_or_none()
    if found is None or found["voided"]:
        raise LatticeError("bootstrap_token_invalid")
    row = BootstrapRow(**found)
    if row.redeemed_by is not None and row.redeemed_by != identity_key:
        raise LatticeError("bootstrap_token_used")
    if row.expires_at_ms <= now_ms:
        raise LatticeError("bootstrap_token_expired")
    return row


def redeem_bootstrap(
    conn: Connection,
    token_hash: bytes,
    *,
    identity_key: bytes,
    credential_hash: bytes,
    key_config: bytes,
    pairing: bytes | None,
    now_ms: int,
    name: str | None = None,
) -> RuntimeRow:
    """Use the token and pair its runtime; the runtime's earlier credential stops working."""
    token = find_bootstrap(conn, token_hash, identity_key, now_ms)
    used = conn.execute(_USE, {"token": token.id, "identity": identity_key, "now": now_ms})
    if not used.rowcount:  # another machine was faster
        raise LatticeError("bootstrap_token_used")
    return pair_runtime(
        conn,
        get_runtime(conn, token.runtime_id),
        identity_key=identity_key,
        credential_hash=credential_hash,
        key_configs=pack_key_configs([key_config]),
        pairing=pairing,
        name=name,
    )


def void_bootstrap(conn: Connection, token_hash: bytes) -> None:
    """Make the token useless, for instance because its pairing secret was sent to the gateway."""
    conn.execute(_VOID, {"hash": token_hash})
