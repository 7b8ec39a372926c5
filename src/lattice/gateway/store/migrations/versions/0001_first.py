"""Everything that the first release stores: accounts, keys, runtimes, works, money and idempotency."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_accounts")),
    )
    op.create_table(
        "entries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("transaction_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("ledger_account", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("amount_micro", sa.BigInteger(), nullable=False),
        sa.Column("work_id", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_entries")),
    )
    op.create_index("ix_entries_account_id_id", "entries", ["account_id", "id"], unique=False)
    op.create_index(
        "uq_entries_grant",
        "entries",
        ["transaction_id", "ledger_account"],
        unique=True,
        sqlite_where=sa.text("kind = 'grant'"),
        postgresql_where=sa.text("kind = 'grant'"),
    )
    op.create_table(
        "holds",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("work_id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("amount_micro", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("charged_micro", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.CheckConstraint(
            "amount_micro > 0 AND charged_micro >= 0 AND charged_micro <= amount_micro", name=op.f("ck_holds_amounts")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holds")),
        sa.UniqueConstraint("work_id", name=op.f("uq_holds_work_id")),
    )
    op.create_index(
        "ix_holds_spend",
        "holds",
        ["key_id", "state", "charged_micro", "amount_micro"],
        unique=False,
        sqlite_where=sa.text("state <> 'voided'"),
        postgresql_where=sa.text("state <> 'voided'"),
    )
    op.create_table(
        "idempotency",
        sa.Column("scope_hash", sa.LargeBinary(), nullable=False),
        sa.Column("body_mac", sa.LargeBinary(), nullable=False),
        sa.Column("work_id", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope_hash", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_expires_at_ms"), "idempotency", ["expires_at_ms"], unique=False)
    op.create_index(op.f("ix_idempotency_work_id"), "idempotency", ["work_id"], unique=False)
    op.create_table(
        "prices",
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("input_micro_per_million", sa.BigInteger(), nullable=False),
        sa.Column("output_micro_per_million", sa.BigInteger(), nullable=False),
        sa.Column("default_max_output_tokens", sa.Integer(), nullable=False),
        sa.Column("context", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_prices")),
    )
    op.create_table(
        "usage",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("runtime_id", sa.String(), nullable=False),
        sa.Column("work_id", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("sealing", sa.String(), nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("charged_micro", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage")),
    )
    op.create_index("ix_usage_account_id_id", "usage", ["account_id", "id"], unique=False)
    op.create_table(
        "works",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("runtime_id", sa.String(), nullable=False),
        sa.Column("gateway_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("task", sa.String(), nullable=False),
        sa.Column("sealing", sa.String(), nullable=False),
        sa.Column("envelope_hash", sa.LargeBinary(), nullable=False),
        sa.Column("hold_micro", sa.BigInteger(), nullable=False),
        sa.Column("lease_expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ms", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("delivered_tokens", sa.Integer(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_works")),
    )
    op.create_index(
        "ix_works_open",
        "works",
        ["gateway_id", "lease_expires_ms", "deadline_ms"],
        unique=False,
        sqlite_where=sa.text("ended_at_ms IS NULL"),
        postgresql_where=sa.text("ended_at_ms IS NULL"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("allowed_models", sa.Text(), nullable=True),
        sa.Column("spend_cap_micro", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=True),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("last_used_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_api_keys_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("secret_hash", name=op.f("uq_api_keys_secret_hash")),
    )
    op.create_index("ix_api_keys_account_id_id", "api_keys", ["account_id", "id"], unique=False)
    op.create_table(
        "runtimes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("credential_hash", sa.LargeBinary(), nullable=True),
        sa.Column("identity_key", sa.LargeBinary(), nullable=True),
        sa.Column("key_configs", sa.LargeBinary(), nullable=True),
        sa.Column("announcement", sa.LargeBinary(), nullable=True),
        sa.Column("pairing", sa.LargeBinary(), nullable=True),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("last_seen_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_runtimes_account_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runtimes")),
        sa.UniqueConstraint("credential_hash", name=op.f("uq_runtimes_credential_hash")),
    )
    op.create_index("ix_runtimes_account_id_kind_id", "runtimes", ["account_id", "kind", "id"], unique=False)
    op.create_index("ix_runtimes_kind_id", "runtimes", ["kind", "id"], unique=False)
    op.create_table(
        "wallets",
        sa.Column("account_id", sa.String(), nullable=False),
        sa.Column("available_micro", sa.BigInteger(), nullable=False),
        sa.Column("held_micro", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("available_micro >= 0", name=op.f("ck_wallets_available")),
        sa.CheckConstraint("held_micro >= 0", name=op.f("ck_wallets_held")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=op.f("fk_wallets_account_id")),
        sa.PrimaryKeyConstraint("account_id", name=op.f("pk_wallets")),
    )
    op.create_table(
        "bootstrap_tokens",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("runtime_id", sa.String(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("app_key", sa.LargeBinary(), nullable=True),
        sa.Column("app_key_mac", sa.LargeBinary(), nullable=True),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("redeemed_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("redeemed_by", sa.LargeBinary(), nullable=True),
        sa.Column("voided", sa.Boolean(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["runtime_id"], ["runtimes.id"], name=op.f("fk_bootstrap_tokens_runtime_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bootstrap_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_bootstrap_tokens_token_hash")),
    )
    op.create_index(op.f("ix_bootstrap_tokens_runtime_id"), "bootstrap_tokens", ["runtime_id"], unique=False)


def downgrade() -> None:
    """Drop every table."""
    op.drop_index(op.f("ix_bootstrap_tokens_runtime_id"), table_name="bootstrap_tokens")
    op.drop_table("bootstrap_tokens")
    op.drop_table("wallets")
    op.drop_index("ix_runtimes_kind_id", table_name="runtimes")
    op.drop_index("ix_runtimes_account_id_kind_id", table_name="runtimes")
    op.drop_table("runtimes")
    op.drop_index("ix_api_keys_account_id_id", table_name="api_keys")
    op.drop_table("api_keys")
    op.drop_index(
        "ix_works_open",
        table_name="works",
        sqlite_where=sa.text("ended_at_ms IS NULL"),
        postgresql_where=sa.text("ended_at_ms IS NULL"),
    )
    op.drop_table("works")
    op.drop_index("ix_usage_account_id_id", table_name="usage")
    op.drop_table("usage")
    op.drop_table("prices")
    op.drop_index(op.f("ix_idempotency_work_id"), table_name="idempotency")
    op.drop_index(op.f("ix_idempotency_expires_at_ms"), table_name="idempotency")
    op.drop_table("idempotency")
    op.drop_index(
        "ix_holds_spend",
        table_name="holds",
        sqlite_where=sa.text("state <> 'voided'"),
        postgresql_where=sa.text("state <> 'voided'"),
    )
    op.drop_table("holds")
    op.drop_index(
        "uq_entries_grant",
        table_name="entries",
        sqlite_where=sa.text("kind = 'grant'"),
        postgresql_where=sa.text("kind = 'grant'"),
    )
    op.drop_index("ix_entries_account_id_id", table_name="entries")
    op.drop_table("entries")
    op.drop_table("accounts")
