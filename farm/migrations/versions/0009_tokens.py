"""who may ask the web page, and what was handed in over it"""

import sqlalchemy as sa
from alembic import op

import schemas.column_types

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    # New tables: a farm of the last version goes on meanwhile.
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("scopes", sa.String(length=40), nullable=False),
        sa.Column("max_priority", sa.Integer(), nullable=False),
        sa.Column("max_pending", sa.Integer(), nullable=True),
        sa.Column("created_at", schemas.column_types.Utc(timezone=True), nullable=False),
        sa.Column("revoked_at", schemas.column_types.Utc(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("name", name=op.f("uq_tokens_name")),
        sa.UniqueConstraint("sha256", name=op.f("uq_tokens_sha256")),
    )
    op.create_table(
        "submissions",
        sa.Column("batch_id", sa.Integer(), nullable=False),
        sa.Column("token_id", sa.Integer(), nullable=True),
        sa.Column("key_sha256", sa.String(length=64), nullable=True),
        sa.Column("request_sha256", sa.String(length=64), nullable=True),
        sa.Column("answer", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_submissions_batch_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["token_id"], ["tokens.id"], name=op.f("fk_submissions_token_id")),
        sa.PrimaryKeyConstraint("batch_id", name=op.f("pk_submissions")),
    )
    op.create_index("ix_submissions_token_id", "submissions", ["token_id"])
    op.create_index("uq_submissions_key_sha256", "submissions", ["key_sha256"], unique=True)
