"""The JSON of queries and databases, and the headers of a result."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from lattice.core.errors import LatticeError, catalogue
from lattice.core.worker_relay import RECEIPT_HEADER, VERSION_HEADER
from lattice.gateway.api.views import Body
from lattice.gateway.encrypted.views import UploadId
from lattice.gateway.queries.databases import DatabaseRow
from lattice.gateway.queries.rows import QueryRow
from lattice.gateway.queries.target import exhausted


class QueryView(BaseModel):
    """A query. `reason` is an error code of the catalogue; `receipt` the signed word of the worker that computed."""

    id: str
    state: Literal["queued", "in_flight", "completed", "failed", "cancelled", "expired"]
    reason: str | None
    model: str
    version: int
    attempt: int
    verify: int
    input_sha256: str
    output_sha256: str | None
    output_bytes: int | None
    receipt: str | None
    queue_ms: int | None
    worker_ms: int | None
    created_at_ms: int
    deadline_ms: int
    ended_at_ms: int | None

    @classmethod
    def of(cls, row: QueryRow) -> QueryView:
        """The view of a row."""
        timings, done = row.measured(), row.state == "completed"
        return cls(
            id=row.id,
            state=row.state,
            reason=row.reason,
            model=row.model_id,
            version=row.version,
            attempt=row.attempt,
            verify=row.verify,
            input_sha256=row.input_sha256.hex(),
            output_sha256=row.output_sha256.hex() if done and row.output_sha256 else None,
            output_bytes=row.output_bytes if done else None,
            receipt=row.receipt.decode() if done and row.receipt else None,
            queue_ms=timings.get("queue_ms"),
            worker_ms=timings.get("worker_ms"),
            created_at_ms=row.created_at_ms,
            deadline_ms=row.deadline_ms,
            ended_at_ms=row.ended_at_ms,
        )


class NewDatabaseBody(Body):
    """`POST /v1/encrypted-databases`: a complete upload of kind `database`."""

    upload_id: UploadId


class DatabaseView(BaseModel):
    """An encrypted database."""

    id: str
    model: str
    sha256: str
    bytes: int
    created_at_ms: int

    @classmethod
    def of(cls, row: DatabaseRow) -> DatabaseView:
        """The view of a row."""
        return cls(
            id=row.id,
            model=row.model_id,
            sha256=row.blob_sha256.hex(),
            bytes=row.bytes,
            created_at_ms=row.created_at_ms,
        )


class DatabaseList(BaseModel):
    """A user's databases for a model."""

    data: list[DatabaseView]


def result_headers(row: QueryRow, taken_ms: float | None = None, total_ms: float | None = None) -> dict[str, str]:
    """What travels beside a result: its query, the worker's receipt, and where the time went."""
    timings = row.measured()
    parts = {
        "body": taken_ms,
        "queue": timings.get("queue_ms"),
        "worker": timings.get("worker_ms"),
        "total": total_ms,
    }
    timing = ", ".join(f"{name};dur={value:.1f}" for name, value in parts.items() if value is not None)
    headers = {"x-lattice-query": row.id, VERSION_HEADER: str(row.version), "server-timing": timing}
    if row.receipt:
        headers[RECEIPT_HEADER] = row.receipt.decode()
    return headers


def failure(row: QueryRow) -> LatticeError:
    """Why an ended query has no result."""
    if row.reason == "credits_exhausted":
        return exhausted()
    code = row.reason if row.reason in catalogue() else "runtime_failed"
    return LatticeError(code, details={"query": row.id})
