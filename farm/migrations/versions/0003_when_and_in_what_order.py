"""when a batch may be rendered, its weight, and what a pack took lately"""

import sqlalchemy as sa
from alembic import op

import schemas.column_types

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # Plain ADD COLUMN, nullable or with a default of the database's: a farm of the last version goes on meanwhile.
    op.add_column("batches", sa.Column("weight", sa.Double(), server_default=sa.text("1"), nullable=False))
    op.add_column("batches", sa.Column("window", sa.Text(), nullable=True))
    op.add_column("batches", sa.Column("not_before", schemas.column_types.Utc(timezone=True), nullable=True))
    op.add_column("batches", sa.Column("deadline", schemas.column_types.Utc(timezone=True), nullable=True))
    op.add_column("batches", sa.Column("stops_running", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index("ix_packs_ended", "packs", ["pair", "ended_at"])
