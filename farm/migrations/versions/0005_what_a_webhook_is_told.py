"""what a webhook is told of a batch"""

import sqlalchemy as sa
from alembic import op

import schemas.column_types

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # A new table: a farm of the last version goes on meanwhile.
    op.create_table(
        "webhook_deliveries",
        sa.Column("batch_id", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(length=40), nullable=False),
        sa.Column("event_id", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", schemas.column_types.Utc(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_webhook_deliveries_batch_id")),
        sa.PrimaryKeyConstraint("batch_id", "event", name=op.f("pk_webhook_deliveries")),
    )
    op.create_index("ix_webhook_deliveries_state", "webhook_deliveries", ["state", "next_at"])
