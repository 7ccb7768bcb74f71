"""what is looked up and kept for each result: no keys that the same statement has made or holds, one index less"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_LINKED = sa.text("attempt = 0")


def upgrade() -> None:
    # A farm of the last version goes on. PostgreSQL writes no table anew; SQLite does, as it can drop no key.
    op.drop_index("ix_results_pack_id", "results")
    with op.batch_alter_table("results") as results:
        results.drop_constraint("fk_results_job_id", type_="foreignkey")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint("fk_jobs_pack_id", type_="foreignkey")
    op.create_index("ix_results_linked", "results", ["pack_id"], sqlite_where=_LINKED, postgresql_where=_LINKED)
    if op.get_bind().dialect.name == "postgresql":
        # Much that is written to a pack's row, no index looks at: it goes beside the row, where its page has room.
        op.execute("ALTER TABLE packs SET (fillfactor = 50)")
