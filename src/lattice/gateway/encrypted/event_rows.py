"""Rows of `model_events`: what happened to a model or to its account, in order, and how webhooks heard of it.

An event of the account has no model. Where the webhooks of models shall hear of it, each has a copy of the row to carry
it there; copies are in no stream.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, insert, or_, select, update

from lattice.core.clock import DAY_MS
from lattice.core.ids import Prefix, new_id
from lattice.gateway.store.encrypted_schema import model_events

KEEP_MS = 30 * DAY_MS

_c = model_events.c
_INSERT = insert(model_events)
_LAST = select(func.max(_c.created_at_ms)).where(_c.account_id == bindparam("account"))
_AFTER = (
    select(model_events)
    .where(_c.model_id == bindparam("model"), _c.id > bindparam("after"), _c.copy_of.is_(None))
    .order_by(_c.id)
    .limit(bindparam("most"))
)
_DUE = select(model_events).where(_c.next_attempt_ms <= bindparam("now")).order_by(_c.next_attempt_ms).limit(20)
_TRIED = (
    update(model_events)
    .where(_c.id == bindparam("event"))
    .values(attempts=bindparam("tried"), next_attempt_ms=bindparam("next"), delivered_at_ms=bindparam("at"))
)
_FORGET = delete(model_events).where(_c.created_at_ms <= bindparam("before"), _c.next_attempt_ms.is_(None))


class EventRow(msgspec.Struct, frozen=True):
    """One row, in the table's order. `body` is the JSON text that a webhook gets."""

    id: str
    account_id: str
    model_id: str | None
    kind: str
    body: str
    created_at_ms: int
    attempts: int
    next_attempt_ms: int | None
    delivered_at_ms: int | None
    copy_of: str | None = None


def add_event(
    conn: Connection,
    account_id: str,
    model_id: str | None,
    kind: str,
    facts: dict[str, Any],
    now_ms: int,
    *,
    hooked: bool,
) -> EventRow:
    """Store an event; `hooked` ones are delivered to the model's webhook. Later events have larger ids, always."""
    event_id, at = _next_id(conn, account_id, now_ms)
    body = {"id": event_id, "kind": kind, "created_at_ms": at, **facts}
    due = now_ms if hooked else None
    row = EventRow(event_id, account_id, model_id, kind, msgspec.json.encode(body).decode(), at, 0, due, None)
    conn.execute(_INSERT, msgspec.structs.asdict(row))
    return row


def carry_event(conn: Connection, event: EventRow, model_id: str, now_ms: int) -> None:
    """Have a model's webhook hear of an event of its account: the same body, under the same name."""
    copy_id, at = _next_id(conn, event.account_id, now_ms)
    copy = EventRow(copy_id, event.account_id, model_id, event.kind, event.body, at, 0, now_ms, None, copy_of=event.id)
    conn.execute(_INSERT, msgspec.structs.asdict(copy))


def events_after(conn: Connection, model_id: str, after: str, most: int = 100) -> list[EventRow]:
    """A model's events behind that id ('' for all), oldest first."""
    return [EventRow(*row) for row in conn.execute(_AFTER, {"model": model_id, "after": after, "most": most})]


def account_events_after(
    conn: Connection, account_id: str, after: str, kinds: Collection[str], most: int = 100
) -> list[EventRow]:
    """Everything of an account behind that id, oldest first, of the kinds that begin so (`worker.`)."""
    statement = (
        select(model_events)
        .where(_c.account_id == account_id, _c.id > after, _c.copy_of.is_(None))
        .where(or_(*(_c.kind.startswith(kind, autoescape=True) for kind in kinds)))
        .order_by(_c.id)
        .limit(most)
    )
    return [EventRow(*row) for row in conn.execute(statement)]


def due_events(conn: Connection, now_ms: int) -> list[EventRow]:
    """What is to be delivered to webhooks now."""
    return [EventRow(*row) for row in conn.execute(_DUE, {"now": now_ms})]


def note_attempt(
    conn: Connection, event_id: str, attempts: int, next_attempt_ms: int | None, delivered_at_ms: int | None
) -> None:
    """How a delivery went; None for `next_attempt_ms` ends it."""
    conn.execute(_TRIED, {"event": event_id, "tried": attempts, "next": next_attempt_ms, "at": delivered_at_ms})


def forget_events(conn: Connection, now_ms: int) -> None:
    """Drop what is older than a month."""
    conn.execute(_FORGET, {"before": now_ms - KEEP_MS})


def _next_id(conn: Connection, account_id: str, now_ms: int) -> tuple[str, int]:
    """An id behind all that the account has, and its time."""
    last = conn.execute(_LAST, {"account": account_id}).scalar()
    at = now_ms if last is None else max(now_ms, last + 1)
    return new_id(Prefix.EVENT, at), at
