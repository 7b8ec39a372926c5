"""Which database failures mean that the store is away: those become `store_unavailable`, never a 401 or a 500."""

from __future__ import annotations

from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from lattice.core.errors import LatticeError

_OUR_MISTAKES = (IntegrityError, ProgrammingError, DataError, NotSupportedError)
_RETRYABLE_STATES = frozenset({"40001", "40P01"})  # serialization failure, deadlock


def is_outage(error: BaseException) -> bool:
    """Whether the database, not the statement, is what failed."""
    if isinstance(error, DBAPIError):
        return error.connection_invalidated or not isinstance(error, _OUR_MISTAKES)
    return isinstance(error, (PoolTimeoutError, OSError))


def is_conflict(error: BaseException) -> bool:
    """Whether another writer got in the way, so that the same write may succeed when run again."""
    if isinstance(error, IntegrityError):
        return True
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _RETRYABLE_STATES


def translate(error: BaseException) -> BaseException:
    """What the caller of the store gets for a failure."""
    return unavailable(error) if is_outage(error) else error


def unavailable(cause: BaseException | None = None) -> LatticeError:
    """A fresh `store_unavailable`; the driver's text stays in `__cause__`, out of every response."""
    error = LatticeError("store_unavailable", retry_after_ms=1_000)
    error.__cause__ = cause
    return error


__all__ = ["is_conflict", "is_outage", "translate", "unavailable"]
