"""schedules and their firings, and how a batch came to be"""

import sqlalchemy as sa
from alembic import op

import schemas.column_types

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # New tables, and a plain ADD COLUMN, nullable: a farm of the last version goes on meanwhile.
    op.add_column("batches", sa.Column("origin", sa.JSON(none_as_null=True), nullable=True))
    op.create_table(
        "schedules",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("cron", sa.Text(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("order", sa.JSON(), nullable=False),
        sa.Column("missed", sa.String(length=10), nullable=False),
        sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("created_at", schemas.column_types.Utc(timezone=True), nullable=False),
        sa.Column("next_due_at", schemas.column_types.Utc(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("name", name=op.f("uq_schedules_name")),
    )
    op.create_table(
        "firings",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("schedule_id", sa.Integer(), nullable=False),
        sa.Column("due_at", schemas.column_types.Utc(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("fence", sa.String(length=32), nullable=True),
        sa.Column("lease_expires_at", schemas.column_types.Utc(timezone=True), nullable=True),
        sa.Column("retry_at", schemas.column_types.Utc(timezone=True), nullable=True),
        sa.Column("tries", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("batch_id", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("ended_at", schemas.column_types.Utc(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name=op.f("fk_firings_schedule_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_firings_batch_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_firings")),
        sa.UniqueConstraint("schedule_id", "due_at", name=op.f("uq_firings_schedule_id_due_at")),
        sa.UniqueConstraint("fence", name=op.f("uq_firings_fence")),
    )
    op.create_index("ix_firings_batch_id", "firings", ["batch_id"])
    op.create_index(
        "ix_firings_live",
        "firings",
        ["due_at"],
        sqlite_where=sa.text("state IN ('due', 'submitting')"),
        postgresql_where=sa.text("state IN ('due', 'submitting')"),
    )
