"""Rows of `model_events`: what happened to a model (or to an account's credits), in order, and its webhook's fate."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from lattice.core.clock import DAY_MS
from lattice.core.ids import Prefix, new_id
from lattice.gateway.store.schema import model_events

KEEP_MS = 30 * DAY_MS

_c = model_events.c
_INSERT = insert(model_events)
_LAST = select(func.max(_c.created_at_ms)).where(_c.account_id == bindparam("account"))
_AFTER = (
    select(model_events)
    .where(_c.model_id == bindparam("model"), _c.id > bindparam("after"))
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
    last = conn.execute(_LAST, {"account": account_id}).scalar()
    at = now_ms if last is None else max(now_ms, last + 1)
    event_id = new_id(Prefix.EVENT, at)
    body = {"id": event_id, "kind": kind, "created_at_ms": at, **facts}
    due = now_ms if hooked else None
    row = EventRow(event_id, account_id, model_id, kind, msgspec.json.encode(body).decode(), at, 0, due, None)
    conn.execute(_INSERT, msgspec.structs.asdict(row))
    return row


def events_after(conn: Connection, model_id: str, after: str, most: int = 100) -> list[EventRow]:
    """A model's events behind that id ('' for all), oldest first."""
    return [EventRow(*row) for row in conn.execute(_AFTER, {"model": model_id, "after": after, "most": most})]


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
