"""The tables of encrypted inference: models, tokens, keys, workers, queries. What `schema` says holds here too."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    text,
)

from lattice.gateway.store.metadata import metadata
from lattice.gateway.store.schema import accounts

encrypted_models = Table(
    "encrypted_models",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, ForeignKey(accounts.c.id), nullable=False),
    Column("name", String, nullable=False),
    Column("visibility", String, nullable=False),
    Column("weights_exposure", String, nullable=False),
    Column("settings", Text, nullable=False),
    Column("webhook_url", String),
    # Sealed under a key derived from the pepper: the gateway must sign with it, so a hash would not do.
    Column("webhook_secret", LargeBinary),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("deleted_at_ms", BigInteger),
    Index("ix_encrypted_models_account_id_id", "account_id", "id"),
    # A deleted model's name is free again.
    Index(
        "uq_encrypted_models_name",
        "account_id",
        "name",
        unique=True,
        sqlite_where=text("deleted_at_ms IS NULL"),
        postgresql_where=text("deleted_at_ms IS NULL"),
    ),
    Index(
        "ix_encrypted_models_public",
        "id",
        sqlite_where=text("visibility = 'public' AND deleted_at_ms IS NULL"),
        postgresql_where=text("visibility = 'public' AND deleted_at_ms IS NULL"),
    ),
)

model_versions = Table(
    "model_versions",
    metadata,
    Column("model_id", String, ForeignKey("encrypted_models.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("state", String, nullable=False),
    Column("reason", String),
    Column("source_sha256", LargeBinary, nullable=False),
    Column("source_kind", String, nullable=False),
    Column("calibration_sha256", LargeBinary),
    Column("options", Text, nullable=False),
    # From here on known when the version is ready.
    Column("artefact_sha256", LargeBinary),
    Column("artefact_bytes", BigInteger),
    Column("client_sha256", LargeBinary),
    Column("program_id", String),
    Column("parameters_id", String),
    Column("keys_hash", LargeBinary),
    Column("key_bytes", BigInteger),
    Column("report", Text),
    Column("gateway_id", String),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    Column("interface_hash", LargeBinary),
    Index(
        "ix_model_versions_open",
        "model_id",
        "number",
        sqlite_where=text("ended_at_ms IS NULL"),
        postgresql_where=text("ended_at_ms IS NULL"),
    ),
)

model_events = Table(
    "model_events",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    # NULL for an event of the account itself, such as a low balance.
    Column("model_id", String),
    Column("kind", String, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    # The webhook's side of it: NULL `next_attempt_ms` where nothing is to be delivered (any more).
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_ms", BigInteger),
    Column("delivered_at_ms", BigInteger),
    # The account's event that this row carries to one model's webhook: such a row is in no stream.
    Column("copy_of", String),
    Index("ix_model_events_model_id_id", "model_id", "id"),
    Index("ix_model_events_account_id_id", "account_id", "id"),
    Index(
        "ix_model_events_due",
        "next_attempt_ms",
        sqlite_where=text("next_attempt_ms IS NOT NULL"),
        postgresql_where=text("next_attempt_ms IS NOT NULL"),
    ),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    # The end user's token where it was not the account itself that began the upload.
    Column("token_id", String),
    Column("kind", String, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("part_bytes", BigInteger, nullable=False),
    # Bit n (least significant first) is set when part n is durable.
    Column("received", LargeBinary, nullable=False),
    Column("state", String, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False, index=True),
    CheckConstraint("bytes > 0 AND part_bytes > 0", name="sizes"),
    Index("ix_uploads_account_id_state", "account_id", "state"),
    Index("ix_uploads_sha256", "sha256"),
)

access_tokens = Table(
    "access_tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("model_id", String, ForeignKey("encrypted_models.id"), nullable=False),
    Column("account_id", String, nullable=False),
    # Whom the provider gave it to; '' while it is assigned to nobody.
    Column("user", String, nullable=False),
    Column("secret_hash", LargeBinary, nullable=False, unique=True),
    Column("prefix", String, nullable=False),
    Column("name", String, nullable=False),
    Column("requests_per_minute", Integer),
    Column("budget_micro", BigInteger),
    Column("spent_micro", BigInteger, nullable=False),
    Column("queries", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    Column("last_used_at_ms", BigInteger),
    Column("created_at_ms", BigInteger, nullable=False),
    CheckConstraint("spent_micro >= 0 AND queries >= 0", name="usage"),
    Index("ix_access_tokens_model_id_id", "model_id", "id"),
)

evaluation_keys = Table(
    "evaluation_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("model_id", String, ForeignKey("encrypted_models.id"), nullable=False),
    Column("user", String, nullable=False),
    Column("parameters_id", String, nullable=False),
    # Of the list of keys that the program asks for: a new version with the same list needs no new keys.
    Column("keys_hash", LargeBinary, nullable=False),
    Column("blob_sha256", LargeBinary, nullable=False),
    Column("public_key_sha256", LargeBinary),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("deleted_at_ms", BigInteger),
    # What the user calls the device whose secret it is; several devices of one user have a set each.
    Column("device", String, nullable=False, server_default=""),
    Index("ix_evaluation_keys_model_id_user_id", "model_id", "user", "id"),
    Index("ix_evaluation_keys_blob_sha256", "blob_sha256"),
)

hardware_classes = Table(
    "hardware_classes",
    metadata,
    Column("name", String, primary_key=True),
    Column("micro_per_second", BigInteger, nullable=False),
    Column("cores", Integer, nullable=False),
    Column("memory_mib", BigInteger, nullable=False),
    Column("driver", Text, nullable=False),
    CheckConstraint("micro_per_second >= 0 AND cores > 0 AND memory_mib > 0", name="sizes"),
)

workers = Table(
    "workers",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("model_id", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("hardware_class", String, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", String),
    Column("credential_hash", LargeBinary, unique=True),
    Column("session", String),
    Column("gateway_id", String),
    Column("started_at_ms", BigInteger, nullable=False),
    Column("active_at_ms", BigInteger),
    Column("ended_at_ms", BigInteger),
    Column("last_seen_ms", BigInteger),
    Column("paid_until_ms", BigInteger),
    Column("billed_ms", BigInteger, nullable=False),
    Column("billed_micro", BigInteger, nullable=False),
    Column("held_micro", BigInteger, nullable=False),
    Column("price_micro_per_second", BigInteger, nullable=False),
    Column("restarts", Integer, nullable=False),
    Column("next_version", Integer),
    Column("failed_version", Integer),
    CheckConstraint("billed_ms >= 0 AND billed_micro >= 0 AND held_micro >= 0", name="amounts"),
    Index("ix_workers_account_id_id", "account_id", "id"),
    Index("ix_workers_model_id_id", "model_id", "id"),
    Index(
        "ix_workers_open",
        "gateway_id",
        "last_seen_ms",
        sqlite_where=text("ended_at_ms IS NULL"),
        postgresql_where=text("ended_at_ms IS NULL"),
    ),
)

encrypted_queries = Table(
    "encrypted_queries",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("model_id", String, nullable=False),
    Column("version", Integer, nullable=False),
    Column("token_id", String, nullable=False),
    Column("user", String, nullable=False),
    Column("evaluation_key_id", String, nullable=False),
    Column("state", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("worker_id", String),
    Column("verify", Integer, nullable=False),
    Column("input_sha256", LargeBinary, nullable=False),
    Column("input_bytes", BigInteger, nullable=False),
    Column("output_sha256", LargeBinary),
    Column("output_bytes", BigInteger),
    Column("database_id", String),
    Column("receipt", LargeBinary),
    Column("timings", Text),
    Column("reason", String),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("lease_expires_ms", BigInteger, nullable=False),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    Index("ix_encrypted_queries_token_id_id", "token_id", "id"),
    Index("ix_encrypted_queries_account_id_id", "account_id", "id"),
    Index(
        "ix_encrypted_queries_open",
        "model_id",
        "state",
        "id",
        sqlite_where=text("ended_at_ms IS NULL"),
        postgresql_where=text("ended_at_ms IS NULL"),
    ),
    Index("ix_encrypted_queries_input_sha256", "input_sha256"),
    Index("ix_encrypted_queries_output_sha256", "output_sha256"),
)

encrypted_databases = Table(
    "encrypted_databases",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("model_id", String, nullable=False),
    Column("user", String, nullable=False),
    Column("blob_sha256", LargeBinary, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("deleted_at_ms", BigInteger),
    Index("ix_encrypted_databases_model_id_user_id", "model_id", "user", "id"),
    Index("ix_encrypted_databases_blob_sha256", "blob_sha256"),
)
