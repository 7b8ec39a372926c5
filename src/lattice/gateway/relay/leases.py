"""Leases as rows: the writes that make a lease durable before its work is handed over."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from lattice.core.errors import LatticeError
from lattice.core.relay import WorkRef
from lattice.gateway.works.rows import lease, requeue


def lease_all(
    conn: Connection, refs: Sequence[WorkRef], gateway_id: str, lease_expires_ms: int, again: bool
) -> list[int | None]:
    """Lease queued works, or, with `again`, leased ones anew. The attempts, None where a work has ended meanwhile."""
    attempts: list[int | None] = []
    for ref in refs:
        if again:
            requeue(conn, ref.work_id, ref.attempt)
        try:
            attempts.append(lease(conn, ref.work_id, gateway_id, lease_expires_ms))
        except LatticeError:
            attempts.append(None)
    return attempts
