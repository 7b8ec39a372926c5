"""Rollout of versions: what a worker goes to next, what it could not load, and how versions are encrypted for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; nothing is known of what is there already."""
    op.add_column("workers", sa.Column("next_version", sa.Integer(), nullable=True))
    op.add_column("workers", sa.Column("failed_version", sa.Integer(), nullable=True))
    op.add_column("model_versions", sa.Column("interface_hash", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    """Drop them."""
    with op.batch_alter_table("model_versions") as versions:
        versions.drop_column("interface_hash")
    with op.batch_alter_table("workers") as workers:
        workers.drop_column("failed_version")
        workers.drop_column("next_version")
