"""what a retry needs to know, when a batch was last staged, how many messages a worker refused"""

import sqlalchemy as sa
from alembic import op

import schemas.column_types

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    # Plain ADD COLUMN, nullable or with a default of the database's: a farm of the last version goes on meanwhile.
    op.add_column("jobs", sa.Column("retry_at", schemas.column_types.Utc(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("traceback", sa.Text(), nullable=True))
    op.add_column("batches", sa.Column("staged_at", schemas.column_types.Utc(timezone=True), nullable=True))
    op.add_column("workers", sa.Column("num_refused", sa.Integer(), server_default=sa.text("0"), nullable=False))
