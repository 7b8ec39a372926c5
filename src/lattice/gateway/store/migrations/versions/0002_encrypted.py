"""Encrypted inference: models and their versions, uploads, access tokens, keys, workers, queries; 64-bit usage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_COUNTS = ("prompt_tokens", "completion_tokens")


def upgrade() -> None:
    """Create the tables and widen the counts of `usage`."""
    op.create_table(
        "encrypted_databases",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("blob_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_encrypted_databases")),
    )
    op.create_index("ix_encrypted_databases_blob_sha256", "encrypted_databases", ["blob_sha256"], unique=False)
    op.create_index(
        "ix_encrypted_databases_model_id_user_id", "encrypted_databases", ["model_id", "user", "id"], unique=False
    )
    op.create_table(
        "encrypted_queries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("token_id", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("evaluation_key_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker_id", sa.String(), nullable=True),
        sa.Column("verify", sa.Integer(), nullable=False),
        sa.Column("input_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("input_bytes", sa.BigInteger(), nullable=False),
        sa.Column("output_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("output_bytes", sa.BigInteger(), nullable=True),
        sa.Column("database_id", sa.String(), nullable=True),
        sa.Column("receipt", sa.LargeBinary(), nullable=True),
        sa.Column("timings", sa.Text(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_encrypted_queries")),
    )
    op.create_index("ix_encrypted_queries_account_id_id", "encrypted_queries", ["account_id", "id"], unique=False)
    op.create_index("ix_encrypted_queries_input_sha256", "encrypted_queries", ["input_sha256"], unique=False)
    op.create_index(
        "ix_encrypted_queries_open",
        "encrypted_queries",
        ["model_id", "state", "id"],
        unique=False,
        sqlite_where=sa.text("ended_at_ms IS NULL"),
        postgresql_where=sa.text("ended_at_ms IS NULL"),
    )
    op.create_index("ix_encrypted_queries_output_sha256", "encrypted_queries", ["output_sha256"], unique=False)
    op.create_index("ix_encrypted_queries_token_id_id", "encrypted_queries", ["token_id", "id"], unique=False)
    op.create_table(
        "hardware_classes",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("micro_per_second", sa.BigInteger(), nullable=False),
        sa.Column("cores", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("driver", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "micro_per_second >= 0 AND cores > 0 AND memory_mib > 0", name=op.f("ck_hardware_classes_sizes")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_hardware_classes")),
    )
    op.create_table(
        "model_events",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_ms", sa.BigInteger(), nullable=True),
        sa.Column("delivered_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_events")),
    )
    op.create_index("ix_model_events_account_id_id", "model_events", ["account_id", "id"], unique=False)
    op.create_index(
        "ix_model_events_due",
        "model_events",
        ["next_attempt_ms"],
        unique=False,
        sqlite_where=sa.text("next_attempt_ms IS NOT NULL"),
        postgresql_where=sa.text("next_attempt_ms IS NOT NULL"),
    )
    op.create_index("ix_model_events_model_id_id", "model_events", ["model_id", "id"], unique=False)
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("token_id", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("part_bytes", sa.BigInteger(), nullable=False),
        sa.Column("received", sa.LargeBinary(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("bytes > 0 AND part_bytes > 0", name=op.f("ck_uploads_sizes")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index("ix_uploads_account_id_state", "uploads", ["account_id", "state"], unique=False)
    op.create_index(op.f("ix_uploads_expires_at_ms"), "uploads", ["expires_at_ms"], unique=False)
    op.create_index("ix_uploads_sha256", "uploads", ["sha256"], unique=False)
    op.create_table(
        "workers",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("hardware_class", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("credential_hash", sa.LargeBinary(), nullable=True),
        sa.Column("session", sa.String(), nullable=True),
        sa.Column("gateway_id", sa.String(), nullable=True),
        sa.Column("started_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("active_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_seen_ms", sa.BigInteger(), nullable=True),
        sa.Column("paid_until_ms", sa.BigInteger(), nullable=True),
        sa.Column("billed_ms", sa.BigInteger(), nullable=False),
        sa.Column("billed_micro", sa.BigInteger(), nullable=False),
        sa.Column("held_micro", sa.BigInteger(), nullable=False),
        sa.Column("price_micro_per_second", sa.BigInteger(), nullable=False),
        sa.Column("restarts", sa.Integer(), nullable=False),
        sa.CheckConstraint("billed_ms >= 0 AND billed_micro >= 0 AND held_micro >= 0", name=op.f("ck_workers_amounts")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
        sa.UniqueConstraint("credential_hash", name=op.f("uq_workers_credential_hash")),
    )
    op.create_index("ix_workers_account_id_id", "workers", ["account_id", "id"], unique=False)
    op.create_index("ix_workers_model_id_id", "workers", ["model_id", "id"], unique=False)
    op.create_index(
        "ix_workers_open",
        "workers",
        ["gateway_id", "last_seen_ms"],
        unique=False,
        sqlite_where=sa.text("ended_at_ms IS NULL"),
        postgresql_where=sa.text("ended_at_ms IS NULL"),
    )
    op.create_table(
        "encrypted_models",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("visibility", sa.String(), nullable=False),
        sa.Column("weights_exposure", sa.String(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("webhook_url", sa.String(), nullable=True),
        sa.Column("webhook_secret", sa.LargeBinary(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_encrypted_models_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_encrypted_models")),
    )
    op.create_index("ix_encrypted_models_account_id_id", "encrypted_models", ["account_id", "id"], unique=False)
    op.create_index(
        "ix_encrypted_models_public",
        "encrypted_models",
        ["id"],
        unique=False,
        sqlite_where=sa.text("visibility = 'public' AND deleted_at_ms IS NULL"),
        postgresql_where=sa.text("visibility = 'public' AND deleted_at_ms IS NULL"),
    )
    op.create_index(
        "uq_encrypted_models_name",
        "encrypted_models",
        ["account_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at_ms IS NULL"),
        postgresql_where=sa.text("deleted_at_ms IS NULL"),
    )
    op.create_table(
        "access_tokens",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("budget_micro", sa.BigInteger(), nullable=True),
        sa.Column("spent_micro", sa.BigInteger(), nullable=False),
        sa.Column("queries", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("spent_micro >= 0 AND queries >= 0", name=op.f("ck_access_tokens_usage")),
        sa.ForeignKeyConstraint(["model_id"], ["encrypted_models.id"], name=op.f("fk_access_tokens_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_tokens")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_access_tokens_secret_hash")),
    )
    op.create_index("ix_access_tokens_model_id_id", "access_tokens", ["model_id", "id"], unique=False)
    op.create_table(
        "evaluation_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("parameters_id", sa.String(), nullable=False),
        sa.Column("keys_hash", sa.LargeBinary(), nullable=False),
        sa.Column("blob_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("public_key_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["encrypted_models.id"], name=op.f("fk_evaluation_keys_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluation_keys")),
    )
    op.create_index("ix_evaluation_keys_blob_sha256", "evaluation_keys", ["blob_sha256"], unique=False)
    op.create_index("ix_evaluation_keys_model_id_user_id", "evaluation_keys", ["model_id", "user", "id"], unique=False)
    op.create_table(
        "model_versions",
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("source_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("source_kind", sa.String(), nullable=False),
        sa.Column("calibration_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("artefact_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("artefact_bytes", sa.BigInteger(), nullable=True),
        sa.Column("client_sha256", sa.LargeBinary(), nullable=True),
        sa.Column("program_id", sa.String(), nullable=True),
        sa.Column("parameters_id", sa.String(), nullable=True),
        sa.Column("keys_hash", sa.LargeBinary(), nullable=True),
        sa.Column("key_bytes", sa.BigInteger(), nullable=True),
        sa.Column("report", sa.Text(), nullable=True),
        sa.Column("gateway_id", sa.String(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["encrypted_models.id"], name=op.f("fk_model_versions_model_id")),
        sa.PrimaryKeyConstraint("model_id", "number", name=op.f("pk_model_versions")),
    )
    op.create_index(
        "ix_model_versions_open",
        "model_versions",
        ["model_id", "number"],
        unique=False,
        sqlite_where=sa.text("ended_at_ms IS NULL"),
        postgresql_where=sa.text("ended_at_ms IS NULL"),
    )
    with op.batch_alter_table("usage") as usage:
        for name in _COUNTS:
            usage.alter_column(name, existing_type=sa.Integer(), type_=sa.BigInteger(), existing_nullable=False)


def downgrade() -> None:
    """Drop the tables; a count that no longer fits makes this fail rather than lose it."""
    with op.batch_alter_table("usage") as usage:
        for name in _COUNTS:
            usage.alter_column(name, existing_type=sa.BigInteger(), type_=sa.Integer(), existing_nullable=False)
    op.drop_index(
        "ix_model_versions_open",
        table_name="model_versions",
        sqlite_where=sa.text("ended_at_ms IS NULL"),
        postgresql_where=sa.text("ended_at_ms IS NULL"),
    )
    op.drop_table("model_versions")
    op.drop_index("ix_evaluation_keys_model_id_user_id", table_name="evaluation_keys")
    op.drop_index("ix_evaluation_keys_blob_sha256", table_name="evaluation_keys")
    op.drop_table("evaluation_keys")
    op.drop_index("ix_access_tokens_model_id_id", table_name="access_tokens")
    op.drop_table("access_tokens")
    op.drop_index(
        "uq_encrypted_models_name",
        table_name="encrypted_models",
        sqlite_where=sa.text("deleted_at_ms IS NULL"),
        postgresql_where=sa.text("deleted_at_ms IS NULL"),
    )
    op.drop_index(
        "ix_encrypted_models_public",
        table_name="encrypted_models",
        sqlite_where=sa.text("visibility = 'public' AND deleted_at_ms IS NULL"),
        postgresql_where=sa.text("visibility = 'public' AND deleted_at_ms IS NULL"),
    )
    op.drop_index("ix_encrypted_models_account_id_id", table_name="encrypted_models")
    op.drop_table("encrypted_models")
    op.drop_index(
        "ix_workers_open",
        table_name="workers",
        sqlite_where=sa.text("ended_at_ms IS NULL"),
        postgresql_where=sa.text("ended_at_ms IS NULL"),
    )
    op.drop_index("ix_workers_model_id_id", table_name="workers")
    op.drop_index("ix_workers_account_id_id", table_name="workers")
    op.drop_table("workers")
    op.drop_index("ix_uploads_sha256", table_name="uploads")
    op.drop_index(op.f("ix_uploads_expires_at_ms"), table_name="uploads")
    op.drop_index("ix_uploads_account_id_state", table_name="uploads")
    op.drop_table("uploads")
    op.drop_index("ix_model_events_model_id_id", table_name="model_events")
    op.drop_index(
        "ix_model_events_due",
        table_name="model_events",
        sqlite_where=sa.text("next_attempt_ms IS NOT NULL"),
        postgresql_where=sa.text("next_attempt_ms IS NOT NULL"),
    )
    op.drop_index("ix_model_events_account_id_id", table_name="model_events")
    op.drop_table("model_events")
    op.drop_table("hardware_classes")
    op.drop_index("ix_encrypted_queries_token_id_id", table_name="encrypted_queries")
    op.drop_index("ix_encrypted_queries_output_sha256", table_name="encrypted_queries")
    op.drop_index(
        "ix_encrypted_queries_open",
        table_name="encrypted_queries",
        sqlite_where=sa.text("ended_at_ms IS NULL"),
        postgresql_where=sa.text("ended_at_ms IS NULL"),
    )
    op.drop_index("ix_encrypted_queries_input_sha256", table_name="encrypted_queries")
    op.drop_index("ix_encrypted_queries_account_id_id", table_name="encrypted_queries")
    op.drop_table("encrypted_queries")
    op.drop_index("ix_encrypted_databases_model_id_user_id", table_name="encrypted_databases")
    op.drop_index("ix_encrypted_databases_blob_sha256", table_name="encrypted_databases")
    op.drop_table("encrypted_databases")
