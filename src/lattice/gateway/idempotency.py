"""Idempotency keys: one request, one effect, one answer.

The database holds an HMAC that stands for (credential, route, key), an HMAC of the body, and for `gateway` mode the
reply under AES-GCM. The reply's key is HKDF over the presented secret and the idempotency key, neither of which is
stored, so whoever steals the database cannot read an answer.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from lattice.core.clock import DAY_MS
from lattice.core.errors import LatticeError
from lattice.gateway.store.prepared import Prepared
from lattice.gateway.store.schema import idempotency

KEEP_MS = DAY_MS
MAX_KEY_LENGTH = 255
RETRY_AFTER_MS = 1_000

_c = idempotency.c
_COLUMNS = ["scope_hash", "body_mac", "work_id", "state", "created_at_ms", "expires_at_ms"]
# Prepared also because SQLAlchemy does not report the row count of an INSERT on every driver.
_TAKE = Prepared(
    insert(idempotency).from_select(
        _COLUMNS,
        select(*(bindparam(name, type_=_c[name].type) for name in _COLUMNS)).where(
            ~select(1).where(_c.scope_hash == bindparam("scope_hash")).exists()
        ),
    )
)
_FIND = select(_c.body_mac, _c.state, _c.result, _c.status, _c.expires_at_ms).where(_c.scope_hash == bindparam("scope"))
_FINISH = Prepared(
    update(idempotency)
    .where(_c.scope_hash == bindparam("scope"))
    .values(state=bindparam("new_state"), result=bindparam("sealed"), status=bindparam("new_status"))
)
_FORGET = delete(idempotency).where(_c.scope_hash == bindparam("scope"))
_RELEASE_WORK = delete(idempotency).where(_c.work_id == bindparam("work"), _c.state == "in_flight")
_LOSE_WORK = update(idempotency).where(_c.work_id == bindparam("work"), _c.state == "in_flight").values(state="gone")
_PURGE = delete(idempotency).where(_c.expires_at_ms <= bindparam("now"))


class Claim(msgspec.Struct, frozen=True):
    """What the database knows of an idempotency key."""

    scope_hash: bytes
    body_mac: bytes


class StoredReply(msgspec.Struct, frozen=True):
    """A kept reply, still sealed; `ReplyBox.open` opens it."""

    status: int
    sealed: bytes


class ReplyBox:
    """Seals and opens kept replies for one (credential, key). It holds a key: it has no repr and is never stored."""

    def __init__(self, secret: str, idempotency_key: str, scope_hash: bytes) -> None:
        info = b"lattice idempotent reply v1\0" + idempotency_key.encode()
        self._aead = AESGCM(HKDF(SHA256(), 32, salt=scope_hash, info=info).derive(secret.encode()))
        self._scope = scope_hash

    def seal(self, reply: bytes) -> bytes:
        """Encrypt a reply for keeping."""
        nonce = os.urandom(12)
        return nonce + self._aead.encrypt(nonce, reply, self._scope)

    def open(self, sealed: bytes) -> bytes:
        """Decrypt a kept reply; one that does not authenticate is `idempotency_result_unavailable`."""
        try:
            return self._aead.decrypt(sealed[:12], sealed[12:], self._scope)
        except (InvalidTag, ValueError):
            raise LatticeError("idempotency_result_unavailable", "The kept answer does not open.") from None


class Guard(msgspec.Struct, frozen=True):
    """A request's idempotency: what goes into the database, and how to make the box that never does."""

    claim: Claim
    box: ReplyBox


def guard(mac_key: bytes, *, key_id: str, route: str, idempotency_key: str, secret: str, body: bytes) -> Guard:
    """Make the guard of a request. `mac_key` is derived from the pepper (`identity.Pepper.mac_key`)."""
    if not 1 <= len(idempotency_key) <= MAX_KEY_LENGTH or not idempotency_key.isprintable():
        raise LatticeError("invalid_request", f"`idempotency-key` must be 1 to {MAX_KEY_LENGTH} printable characters.")
    scope = _mac(mac_key, b"scope", key_id.encode(), route.encode(), idempotency_key.encode())
    claim = Claim(scope, _mac(mac_key, b"body", scope, body))
    return Guard(claim, ReplyBox(secret, idempotency_key, scope))


def _mac(key: bytes, *fields: bytes) -> bytes:
    message = b"".join(len(field).to_bytes(8, "big") + field for field in fields)
    return hmac.digest(key, message, "sha256")


def take(conn: Connection, claim: Claim, work_id: str | None, now_ms: int) -> StoredReply | None:
    """Claim the key for a new request: None means go on. A repeated request gets its kept reply or a typed refusal."""
    params = {
        "scope_hash": claim.scope_hash,
        "body_mac": claim.body_mac,
        "work_id": work_id,
        "state": "in_flight",
        "created_at_ms": now_ms,
        "expires_at_ms": now_ms + KEEP_MS,
    }
    if _TAKE.change(conn, params):
        return None
    found = conn.execute(_FIND, {"scope": claim.scope_hash}).one()
    if found.expires_at_ms <= now_ms:
        conn.execute(_FORGET, {"scope": claim.scope_hash})
        _TAKE.change(conn, params)
        return None
    if not hmac.compare_digest(found.body_mac, claim.body_mac):
        raise LatticeError("idempotency_conflict")
    if found.state == "in_flight":
        raise LatticeError("idempotency_in_flight", retry_after_ms=RETRY_AFTER_MS)
    if found.state == "gone" or found.result is None:
        raise LatticeError("idempotency_result_unavailable")
    return StoredReply(found.status, found.result)


def known(conn: Connection, claim: Claim, now_ms: int) -> bool:
    """Whether the key was claimed, with whatever body: whoever has not read the body yet can ask no more."""
    found = conn.execute(_FIND, {"scope": claim.scope_hash}).one_or_none()
    return found is not None and found.expires_at_ms > now_ms


def peek(conn: Connection, claim: Claim, now_ms: int) -> StoredReply | None:
    """The kept reply of a repeated request, without claiming anything: it answers even while the machine is away."""
    found = conn.execute(_FIND, {"scope": claim.scope_hash}).one_or_none()
    if found is None or found.expires_at_ms <= now_ms or found.state != "done" or found.result is None:
        return None
    if not hmac.compare_digest(found.body_mac, claim.body_mac):
        raise LatticeError("idempotency_conflict")
    return StoredReply(found.status, found.result)


def finish(conn: Connection, claim: Claim, status: int, sealed: bytes | None) -> None:
    """The request ended: keep its sealed reply, or, with None, remember only that it ended."""
    state = "gone" if sealed is None else "done"
    _FINISH.change(conn, {"scope": claim.scope_hash, "new_state": state, "sealed": sealed, "new_status": status})


def release_work(conn: Connection, work_id: str) -> None:
    """The work ended without effect, so its key may be used again."""
    conn.execute(_RELEASE_WORK, {"work": work_id})


def lose_work(conn: Connection, work_id: str) -> None:
    """The work's answer is lost, so its key answers `idempotency_result_unavailable` from now on."""
    conn.execute(_LOSE_WORK, {"work": work_id})


def purge(conn: Connection, now_ms: int) -> int:
    """Drop what is older than a day; returns how many."""
    return conn.execute(_PURGE, {"now": now_ms}).rowcount


def once(
    conn: Connection, given: Guard | None, now_ms: int, act: Callable[[Connection], tuple[int, bytes]]
) -> tuple[int, bytes]:
    """Run `act` (status and body of the answer) at most once per key, inside this very transaction."""
    if given is None:
        return act(conn)
    kept = take(conn, given.claim, None, now_ms)
    if kept is not None:
        return kept.status, given.box.open(kept.sealed)
    status, body = act(conn)
    finish(conn, given.claim, status, given.box.seal(body))
    return status, body
