"""What an owner sees of a runtime. Reachability is computed at read time from the live link, never stored."""

from __future__ import annotations

from typing import Any

import msgspec

from lattice.core.ids import b64url
from lattice.core.relay import REACHABLE_MS, Announcement
from lattice.gateway.relay.link import Link
from lattice.gateway.runtimes.presence import newest_interactive
from lattice.gateway.runtimes.rows import RuntimeRow
from lattice.sealing.identity import PublicIdentity

_announcement = msgspec.msgpack.Decoder(Announcement)


def runtime_state(row: RuntimeRow, link: Link | None, now_ms: int) -> str:
    """`unpaired → reachable ⇄ offline → revoked`."""
    if row.revoked_at_ms is not None:
        return "revoked"
    if row.identity_key is None:
        return "unpaired"
    if link is not None:
        return "reachable" if link.reachable(now_ms) else "offline"
    # Another gateway may hold its poll: fall back on the shared record.
    return "reachable" if row.last_seen_ms is not None and now_ms - row.last_seen_ms < REACHABLE_MS else "offline"


def runtime_view(row: RuntimeRow, link: Link | None, now_ms: int) -> dict[str, Any]:
    """The JSON form of a runtime record."""
    identity = None if row.identity_key is None else PublicIdentity.from_bytes(row.identity_key)
    announced = _announcement.decode(row.announcement) if row.announcement else None
    encoded = b""
    if identity is not None:
        _, encoded = newest_interactive(row.signed_key_configs, identity, row.id)
    return {
        "id": row.id,
        "name": row.name,
        "kind": row.kind,
        "state": runtime_state(row, link, now_ms),
        "verified": row.verified,
        "models": [msgspec.to_builtins(model) for model in announced.models] if announced else [],
        "identity_key": identity.text if identity else None,
        "fingerprint": identity.words if identity else None,
        "key_config": b64url(encoded) if encoded else None,
        "pairing": _pairing(row),
        "last_seen_ms": max(row.last_seen_ms or 0, link.last_poll_ms if link else 0) or None,
        "created_at_ms": row.created_at_ms,
    }


def _pairing(row: RuntimeRow) -> dict[str, str | None] | None:
    if row.pairing is None:
        return None
    stored: dict[str, bytes | None] = msgspec.msgpack.decode(row.pairing)
    return {name: None if value is None else b64url(value) for name, value in stored.items()}
