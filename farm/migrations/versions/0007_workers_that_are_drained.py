"""workers that are told to take no more packs"""

import sqlalchemy as sa
from alembic import op

import schemas.column_types

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    # A column that may be empty: a farm of the last version goes on meanwhile.
    op.add_column("workers", sa.Column("draining_since", schemas.column_types.Utc(timezone=True), nullable=True))
