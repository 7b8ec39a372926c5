"""Several devices of one user, and events of an account that are carried to the webhooks of its models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; the sets that are there already have no name."""
    op.add_column("evaluation_keys", sa.Column("device", sa.String(), nullable=False, server_default=""))
    op.add_column("model_events", sa.Column("copy_of", sa.String(), nullable=True))


def downgrade() -> None:
    """Drop them."""
    with op.batch_alter_table("model_events") as events:
        events.drop_column("copy_of")
    with op.batch_alter_table("evaluation_keys") as keys:
        keys.drop_column("device")
