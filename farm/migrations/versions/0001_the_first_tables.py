"""the first tables"""

import sqlalchemy as sa
from alembic import op

import schemas.column_types

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("pair", sa.String(length=63), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("created_at", schemas.column_types.Utc(timezone=True), nullable=False),
        sa.Column("opened_at", schemas.column_types.Utc(timezone=True), nullable=True),
        sa.Column("num_pending", sa.Integer(), nullable=False),
        sa.Column("num_queued", sa.Integer(), nullable=False),
        sa.Column("num_running", sa.Integer(), nullable=False),
        sa.Column("num_done", sa.Integer(), nullable=False),
        sa.Column("num_failed", sa.Integer(), nullable=False),
        sa.Column("num_canceled", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "num_pending >= 0 AND num_queued >= 0 AND num_running >= 0 AND num_done >= 0 AND num_failed >= 0 AND num_canceled >= 0",
            name=op.f("ck_batches_counters"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sqlite_autoincrement=True,
    )
    with op.batch_alter_table("batches", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_batches_name"), ["name"], unique=False)

    op.create_table(
        "environments",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_environments")),
    )
    op.create_table(
        "images",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("pixel_sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("format", sa.String(length=8), nullable=False),
        sa.Column("spec_digest", sa.String(length=64), nullable=False),
        sa.Column("pair_fingerprint", sa.String(length=64), nullable=False),
        sa.Column("created_at", schemas.column_types.Utc(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint("uri", name=op.f("uq_images_uri")),
    )
    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.create_index("ix_images_identity", ["spec_digest", "pair_fingerprint"], unique=False)

    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("holder", sa.String(length=32), nullable=False),
        sa.Column("expires_at", schemas.column_types.Utc(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("process_id", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(length=255), nullable=False),
        sa.Column("pair", sa.String(length=63), nullable=False),
        sa.Column("pair_fingerprint", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("started_at", schemas.column_types.Utc(timezone=True), nullable=False),
        sa.Column("seen_at", schemas.column_types.Utc(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "packs",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("batch_id", sa.Integer(), nullable=False),
        sa.Column("pair", sa.String(length=63), nullable=False),
        sa.Column("pack_key", sa.String(length=120), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("num_jobs", sa.Integer(), nullable=False),
        sa.Column("released_at", schemas.column_types.Utc(timezone=True), nullable=False),
        sa.Column("published_at", schemas.column_types.Utc(timezone=True), nullable=True),
        sa.Column("start_before", schemas.column_types.Utc(timezone=True), nullable=True),
        sa.Column("worker_id", sa.String(length=32), nullable=True),
        sa.Column("claimed_at", schemas.column_types.Utc(timezone=True), nullable=True),
        sa.Column("rendering_at", schemas.column_types.Utc(timezone=True), nullable=True),
        sa.Column("lease_expires_at", schemas.column_types.Utc(timezone=True), nullable=True),
        sa.Column("ended_at", schemas.column_types.Utc(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_packs_batch_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_packs_worker_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_packs")),
    )
    with op.batch_alter_table("packs", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_packs_batch_id"), ["batch_id"], unique=False)
        batch_op.create_index(
            "ix_packs_live",
            ["pair", "state"],
            unique=False,
            sqlite_where=sa.text("state IN ('queued', 'running')"),
            postgresql_where=sa.text("state IN ('queued', 'running')"),
        )

    op.create_table(
        "jobs",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("batch_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("spec_digest", sa.String(length=64), nullable=False),
        sa.Column("repeat", sa.Integer(), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("pack_key", sa.String(length=120), nullable=False),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("isolated", sa.Boolean(), nullable=False),
        sa.Column("pack_id", sa.String(length=32), nullable=True),
        sa.Column("error_code", sa.String(length=40), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_jobs_batch_id")),
        sa.ForeignKeyConstraint(["pack_id"], ["packs.id"], name=op.f("fk_jobs_pack_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.create_index(
            "ix_jobs_failed",
            ["batch_id", "id"],
            unique=False,
            sqlite_where=sa.text("state = 'failed'"),
            postgresql_where=sa.text("state = 'failed'"),
        )
        batch_op.create_index("ix_jobs_number", ["batch_id", "number"], unique=False)
        batch_op.create_index("ix_jobs_pack_id", ["pack_id"], unique=False)
        batch_op.create_index(
            "ix_jobs_pending",
            ["batch_id", "pack_key", "id"],
            unique=False,
            sqlite_where=sa.text("state = 'pending'"),
            postgresql_where=sa.text("state = 'pending'"),
        )
        batch_op.create_index(
            "ix_jobs_pending_oldest",
            ["batch_id", "isolated", "id"],
            unique=False,
            sqlite_where=sa.text("state = 'pending'"),
            postgresql_where=sa.text("state = 'pending'"),
        )
        batch_op.create_index("uq_jobs_identity", ["batch_id", "spec_digest", "repeat"], unique=True)

    op.create_table(
        "results",
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("image_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("environment_digest", sa.String(length=64), nullable=False),
        sa.Column("provenance", sa.JSON(), nullable=False),
        sa.Column("worker_id", sa.String(length=32), nullable=False),
        sa.Column("pack_id", sa.String(length=32), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("render_seconds", sa.Double(), nullable=False),
        sa.Column("finish_seconds", sa.Double(), nullable=False),
        sa.Column("finished_at", schemas.column_types.Utc(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["environment_digest"], ["environments.digest"], name=op.f("fk_results_environment_digest")
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_results_image_id")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_results_job_id")),
        sa.ForeignKeyConstraint(["pack_id"], ["packs.id"], name=op.f("fk_results_pack_id")),
        sa.ForeignKeyConstraint(["worker_id"], ["workers.id"], name=op.f("fk_results_worker_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_results")),
    )
    with op.batch_alter_table("results", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_results_finished_at"), ["finished_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_results_image_id"), ["image_id"], unique=False)
