"""What a token's queries cost it: the time for which a worker had each, at that worker's price.

This is for the token's budget only. Workers are billed by the time in which they are active, whatever they do in it,
and two queries at a time cost a worker's time once and their tokens twice.
"""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, update

from lattice.gateway.queries.rows import QueryRow, cancel_query, find_query
from lattice.gateway.store.encrypted_schema import access_tokens
from lattice.gateway.store.prepared import Prepared
from lattice.gateway.workers import slices
from lattice.gateway.workers.rows import find_worker

_c = access_tokens.c
_CHARGE = Prepared(
    update(access_tokens)
    .where(_c.id == bindparam("token"))
    .values(spent_micro=_c.spent_micro + bindparam("micro"), queries=_c.queries + bindparam("ended"))
)


def charge(conn: Connection, before: QueryRow, after: QueryRow, micro_per_second: int) -> None:
    """An attempt has delivered: count its time, and the query where it has ended."""
    spent = after.measured().get("worker_ms", 0) - before.measured().get("worker_ms", 0)
    micro = slices.cost(spent, micro_per_second)
    _CHARGE.change(conn, {"token": after.token_id, "micro": micro, "ended": 0 if after.open else 1})


def cancel(conn: Connection, query_id: str, token_id: str, now_ms: int) -> QueryRow:
    """End a query at its user's wish; what a worker has done for it so far counts."""
    before = find_query(conn, query_id, lock=True)
    row = cancel_query(conn, query_id, token_id, now_ms)
    if before is not None and before.state == "in_flight" and before.worker_id is not None:
        worker = find_worker(conn, before.worker_id)
        spent = max(0, now_ms - before.measured().get("leased_at_ms", now_ms))
        micro = slices.cost(spent, worker.price_micro_per_second if worker is not None else 0)
        _CHARGE.change(conn, {"token": token_id, "micro": micro, "ended": 0})
    return row
