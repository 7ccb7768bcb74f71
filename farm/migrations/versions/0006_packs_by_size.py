"""the queued packs of a batch that have a device's size"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_LIVE = sa.text("state IN ('queued', 'running')")


def upgrade() -> None:
    op.drop_index("ix_packs_live", "packs")
    op.create_index(
        "ix_packs_live", "packs", ["pair", "state", "batch_id", "pack_key"], sqlite_where=_LIVE, postgresql_where=_LIVE
    )
