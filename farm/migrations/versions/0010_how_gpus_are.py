"""what a worker's GPU says of itself"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    # A column that may be empty: a farm of the last version goes on meanwhile.
    op.add_column("workers", sa.Column("reading", sa.JSON(none_as_null=True), nullable=True))
