"""Every table of the gateway, as SQLAlchemy metadata; the migrations must produce exactly this (a test compares).

Times are integer milliseconds, money is integer micro-credits, secrets appear only as HMACs or under AES-GCM. The rows
that every request writes (works, holds, entries, usage) name their parents without FOREIGN KEY clauses: the parents are
never deleted, and on PostgreSQL each clause would lock the parent row of a busy account.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, ForeignKey("accounts.id"), nullable=False),
    Column("secret_hash", LargeBinary, nullable=False, unique=True),
    Column("prefix", String, nullable=False),
    Column("name", String, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("allowed_models", Text),
    Column("spend_cap_micro", BigInteger),
    Column("requests_per_minute", Integer),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    Column("last_used_at_ms", BigInteger),
    Column("created_at_ms", BigInteger, nullable=False),
    Index("ix_api_keys_account_id_id", "account_id", "id"),
)

runtimes = Table(
    "runtimes",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, ForeignKey("accounts.id"), nullable=False),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("credential_hash", LargeBinary, unique=True),
    Column("identity_key", LargeBinary),
    Column("key_configs", LargeBinary),
    Column("announcement", LargeBinary),
    Column("pairing", LargeBinary),
    Column("verified", Boolean, nullable=False),
    Column("last_seen_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    Column("created_at_ms", BigInteger, nullable=False),
    Index("ix_runtimes_account_id_kind_id", "account_id", "kind", "id"),
    Index("ix_runtimes_kind_id", "kind", "id"),
)

bootstrap_tokens = Table(
    "bootstrap_tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("runtime_id", String, ForeignKey("runtimes.id"), nullable=False, index=True),
    Column("token_hash", LargeBinary, nullable=False, unique=True),
    Column("app_key", LargeBinary),
    Column("app_key_mac", LargeBinary),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("redeemed_at_ms", BigInteger),
    Column("redeemed_by", LargeBinary),
    Column("voided", Boolean, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
)

works = Table(
    "works",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("runtime_id", String, nullable=False),
    Column("gateway_id", String, nullable=False),
    Column("state", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("model", String, nullable=False),
    Column("task", String, nullable=False),
    Column("sealing", String, nullable=False),
    Column("envelope_hash", LargeBinary, nullable=False),
    # What the admission held; 0 on the caller's own machine, where there is no row in `holds`.
    Column("hold_micro", BigInteger, nullable=False),
    Column("lease_expires_ms", BigInteger, nullable=False),
    Column("deadline_ms", BigInteger, nullable=False),
    Column("reason", String),
    Column("delivered_tokens", Integer, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    # Only open works are in this index, so the reaper and a restart read a few rows however long the history is.
    Index(
        "ix_works_open",
        "gateway_id",
        "lease_expires_ms",
        "deadline_ms",
        sqlite_where=text("ended_at_ms IS NULL"),
        postgresql_where=text("ended_at_ms IS NULL"),
    ),
)

holds = Table(
    "holds",
    metadata,
    Column("id", String, primary_key=True),
    Column("work_id", String, nullable=False, unique=True),
    Column("account_id", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("amount_micro", BigInteger, nullable=False),
    Column("state", String, nullable=False),
    Column("charged_micro", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    CheckConstraint("amount_micro > 0 AND charged_micro >= 0 AND charged_micro <= amount_micro", name="amounts"),
    # A key's spend is a sum over this index alone; voided holds count nothing and are not in it.
    Index(
        "ix_holds_spend",
        "key_id",
        "state",
        "charged_micro",
        "amount_micro",
        sqlite_where=text("state <> 'voided'"),
        postgresql_where=text("state <> 'voided'"),
    ),
)

entries = Table(
    "entries",
    metadata,
    Column("id", String, primary_key=True),
    Column("transaction_id", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("ledger_account", String, nullable=False),
    Column("account_id", String, nullable=False),
    Column("amount_micro", BigInteger, nullable=False),
    Column("work_id", String),
    Column("reason", String),
    Column("created_at_ms", BigInteger, nullable=False),
    Index("ix_entries_account_id_id", "account_id", "id"),
    # A grant's transaction is named by who asked for it, so asking twice grants once, for ever.
    Index(
        "uq_entries_grant",
        "transaction_id",
        "ledger_account",
        unique=True,
        sqlite_where=text("kind = 'grant'"),
        postgresql_where=text("kind = 'grant'"),
    ),
)

wallets = Table(
    "wallets",
    metadata,
    Column("account_id", String, ForeignKey("accounts.id"), primary_key=True),
    Column("available_micro", BigInteger, nullable=False),
    Column("held_micro", BigInteger, nullable=False),
    CheckConstraint("available_micro >= 0", name="available"),
    CheckConstraint("held_micro >= 0", name="held"),
)

usage = Table(
    "usage",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("runtime_id", String, nullable=False),
    Column("work_id", String, nullable=False),
    Column("model", String, nullable=False),
    Column("task", String, nullable=False),
    Column("sealing", String, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("charged_micro", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Index("ix_usage_account_id_id", "account_id", "id"),
)

prices = Table(
    "prices",
    metadata,
    Column("model", String, primary_key=True),
    Column("input_micro_per_million", BigInteger, nullable=False),
    Column("output_micro_per_million", BigInteger, nullable=False),
    Column("default_max_output_tokens", Integer, nullable=False),
    Column("context", Integer),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("scope_hash", LargeBinary, primary_key=True),
    Column("body_mac", LargeBinary, nullable=False),
    Column("work_id", String, index=True),
    Column("state", String, nullable=False),
    Column("result", LargeBinary),
    Column("status", Integer),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False, index=True),
)

encrypted_models = Table(
    "encrypted_models",
    metadata,
    Column("id", String, primary_key=True),
    Column("account_id", String, ForeignKey("accounts.id"), nullable=False),
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
