"""Which blobs are still needed: the sweep deletes only what no live row names."""

from __future__ import annotations

from sqlalchemy import Connection, and_, select

from lattice.gateway.store.encrypted_schema import (
    encrypted_databases,
    encrypted_models,
    encrypted_queries,
    evaluation_keys,
    model_versions,
    uploads,
)

_BATCH = 200


def unused(conn: Connection, hashes: list[bytes]) -> list[bytes]:
    """Those among `hashes` that nothing refers to."""
    return [sha256 for at in range(0, len(hashes), _BATCH) for sha256 in _unused(conn, hashes[at : at + _BATCH])]


def _unused(conn: Connection, hashes: list[bytes]) -> list[bytes]:
    live_model = and_(encrypted_models.c.id == model_versions.c.model_id, encrypted_models.c.deleted_at_ms.is_(None))
    versions, queries = model_versions.c, encrypted_queries.c
    columns = [
        *(
            select(column).join(encrypted_models, live_model).where(column.in_(hashes))
            for column in (
                versions.source_sha256,
                versions.calibration_sha256,
                versions.artefact_sha256,
                versions.client_sha256,
            )
        ),
        select(uploads.c.sha256).where(uploads.c.sha256.in_(hashes), uploads.c.state == "complete"),
        *(
            select(table.c.blob_sha256)
            .join(encrypted_models, encrypted_models.c.id == table.c.model_id)
            .where(
                table.c.blob_sha256.in_(hashes),
                table.c.deleted_at_ms.is_(None),
                encrypted_models.c.deleted_at_ms.is_(None),
            )
            for table in (evaluation_keys, encrypted_databases)
        ),
        # A worker may still fetch what was deleted while it had the query.
        *(
            select(table.c.blob_sha256)
            .join(encrypted_queries, table.c.id == column)
            .where(table.c.blob_sha256.in_(hashes), queries.ended_at_ms.is_(None))
            for table, column in (
                (evaluation_keys, queries.evaluation_key_id),
                (encrypted_databases, queries.database_id),
            )
        ),
        *(select(column).where(column.in_(hashes)) for column in (queries.input_sha256, queries.output_sha256)),
    ]
    used = {bytes(sha256) for statement in columns for sha256 in conn.execute(statement).scalars()}
    return [sha256 for sha256 in hashes if sha256 not in used]
