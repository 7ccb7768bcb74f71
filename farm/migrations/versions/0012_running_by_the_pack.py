"""a job's row says queued until its end; whether it runs, its pack's row says"""

from alembic import op

revision = "0012"
down_revision = "0010"


def upgrade() -> None:
    op.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running' AND pack_id IN"
               " (SELECT id FROM packs WHERE state = 'running')")  # fmt: skip
