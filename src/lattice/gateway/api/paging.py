"""Lists: `?limit=&cursor=`, newest first, where a cursor is the last id of the page before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Protocol, TypeVar

from fastapi import Query

from lattice.core.errors import LatticeError
from lattice.core.ids import Prefix, is_id
from lattice.gateway.api.views import Page

MAX_LIMIT = 100
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many at most.")]
Cursor = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before.")]
DEFAULT_LIMIT = 50


class _Row(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=_Row)
V = TypeVar("V")


def require_cursor(prefix: Prefix, cursor: str | None) -> None:
    """Raise `invalid_request` for a cursor that no page of this list gave."""
    if cursor is not None and not is_id(prefix, cursor):
        raise LatticeError("invalid_request", "`cursor` is not one that this list gave.")


def page(rows: Sequence[R], limit: int, view: Callable[[R], V]) -> Page[V]:
    """A page out of up to `limit` + 1 rows."""
    shown = rows[:limit]
    return Page(data=[view(row) for row in shown], next_cursor=shown[-1].id if len(rows) > limit else None)
