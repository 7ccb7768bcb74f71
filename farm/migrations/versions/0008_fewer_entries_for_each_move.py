"""fewer entries in indexes for each move of a job; the oldest queued pack, and a pack's results, found at once"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_RUNNING = sa.text("state = 'running'")
_QUEUED = sa.text("state = 'queued'")
_HELD = sa.text("pack_id IS NOT NULL")
_ENDED = sa.text("ended_at IS NOT NULL")


def upgrade() -> None:
    # Indexes alone: a farm of the last version goes on as soon as they are made, each in the time that its table takes.
    op.drop_index("ix_jobs_pack_id", "jobs")
    op.create_index("ix_jobs_pack_id", "jobs", ["pack_id"], postgresql_where=_HELD)
    op.drop_index("ix_images_identity", "images")
    op.create_index("ix_images_identity", "images", ["spec_digest"])
    op.drop_index("ix_packs_live", "packs")
    op.create_index("ix_packs_running", "packs", ["worker_id"], sqlite_where=_RUNNING, postgresql_where=_RUNNING)
    op.create_index(
        "ix_packs_oldest", "packs", ["batch_id", "pair", "released_at"], sqlite_where=_QUEUED, postgresql_where=_QUEUED
    )
    op.create_index(
        "ix_packs_suiting", "packs", ["batch_id", "pair", "pack_key", "released_at"],
        sqlite_where=_QUEUED, postgresql_where=_QUEUED,
    )  # fmt: skip
    op.drop_index("ix_packs_ended", "packs")
    op.create_index("ix_packs_ended", "packs", ["pair", "ended_at"], sqlite_where=_ENDED, postgresql_where=_ENDED)
    op.create_index("ix_results_pack_id", "results", ["pack_id"])
    if op.get_bind().dialect.name == "postgresql":
        # What has left an index of the queued or pending ones is stepped over until the next vacuum, by whoever looks
        # for the oldest. A table's own fifth, which is the server's default, would be two million jobs of ten.
        op.execute("ALTER TABLE packs SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000)")
        op.execute("ALTER TABLE jobs SET (autovacuum_vacuum_scale_factor = 0.05)")
