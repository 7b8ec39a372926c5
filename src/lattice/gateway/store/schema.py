"""The tables of accounts, machines, work and money, as SQLAlchemy metadata; the migrations must produce exactly this
and `encrypted_schema` (a test compares).

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
    String,
    Table,
    Text,
    text,
)

from lattice.gateway.store.metadata import metadata

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
