"""which open batches have images in common, how far a batch has been linked, and by what a worker's pair is defined"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"

_IN_A_GROUP = sa.text("twin_group IS NOT NULL")


def upgrade() -> None:
    # Columns that may be empty: a farm of the last version goes on meanwhile, and takes no heed of them.
    op.add_column("batches", sa.Column("twin_group", sa.Integer(), nullable=True))
    op.add_column("batches", sa.Column("linked_to", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_batches_twin_group", "batches", ["twin_group"], sqlite_where=_IN_A_GROUP, postgresql_where=_IN_A_GROUP
    )
    op.add_column("workers", sa.Column("definition", sa.String(64), nullable=True))
