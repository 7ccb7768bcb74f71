"""a job's row says queued until its end; whether it runs, its pack's row says; fewer keys to check for each result"""

from alembic import op

revision = "0011"
down_revision = "0010"

#: a worker of the version before looks for jobs in ``running`` when it finishes, and there are none any more
WANTS_A_STOPPED_FARM = True


def upgrade() -> None:
    op.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running' AND pack_id IN"
               " (SELECT id FROM packs WHERE state = 'running')")  # fmt: skip
    with op.batch_alter_table("results") as results:  # SQLite writes the table anew
        for column in ("environment_digest", "worker_id", "pack_id"):
            results.drop_constraint(f"fk_results_{column}", type_="foreignkey")
