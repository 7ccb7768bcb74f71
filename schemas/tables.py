"""The ledger's tables, as SQLAlchemy typed mappings. Alembic makes them (``farm/migrations``); nothing else does."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    TextClause,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from schemas.column_types import BigId, State, Utc


class Table(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


def _partial(name: str, *columns: str, where: TextClause) -> Index:
    """An index that holds some rows alone: so the others cost it nothing."""
    return Index(name, *columns, sqlite_where=where, postgresql_where=where)


class Batch(Table):
    """The jobs submitted together. The ``num_…`` counters move in the transaction that moves the jobs."""

    __tablename__ = "batches"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, index=True)
    pair: Mapped[str] = mapped_column(String(63))
    state: Mapped[str] = mapped_column(State(10))
    priority: Mapped[int] = mapped_column(default=5)
    #: its share of the devices beside other batches of its priority
    weight: Mapped[float] = mapped_column(Double, server_default=text("1"))
    #: the hours in which it may be rendered (``schemas.windows``)
    window: Mapped[str | None] = mapped_column(Text)
    not_before: Mapped[datetime | None] = mapped_column(Utc)
    deadline: Mapped[datetime | None] = mapped_column(Utc)
    #: canceled at once: what renders is stopped, too
    stops_running: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime] = mapped_column(Utc)
    #: when rows last came; a batch in ``staging`` that gets none any more has lost its producer
    staged_at: Mapped[datetime | None] = mapped_column(Utc)
    opened_at: Mapped[datetime | None] = mapped_column(Utc)
    #: how it came to be (``schemas.submit_order.Origin``)
    origin: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    #: the same for open batches that have images in common: they go one after another (``farm.twins``)
    twin_group: Mapped[int | None]
    #: the last image that its jobs were compared with; None for a batch whose jobs are linked to none
    linked_to: Mapped[int | None] = mapped_column(BigInteger)
    num_pending: Mapped[int] = mapped_column(default=0)
    num_queued: Mapped[int] = mapped_column(default=0)
    num_running: Mapped[int] = mapped_column(default=0)
    num_done: Mapped[int] = mapped_column(default=0)
    num_failed: Mapped[int] = mapped_column(default=0)
    num_canceled: Mapped[int] = mapped_column(default=0)

    __table_args__ = (
        CheckConstraint(
            "num_pending >= 0 AND num_queued >= 0 AND num_running >= 0"
            " AND num_done >= 0 AND num_failed >= 0 AND num_canceled >= 0",
            name="counters",
        ),
        _partial("ix_batches_twin_group", "twin_group", where=text("twin_group IS NOT NULL")),
        {"sqlite_autoincrement": True},  # a discarded batch's number never comes again
    )


class Pack(Table):
    """Jobs handed to one device together. Its id is the fence: whoever no longer holds it can change nothing."""

    __tablename__ = "packs"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"), index=True)
    pair: Mapped[str] = mapped_column(String(63))
    pack_key: Mapped[str] = mapped_column(String(120))  # the shape of its jobs' keys, to which devices keep
    state: Mapped[str] = mapped_column(State(10))
    num_jobs: Mapped[int]
    released_at: Mapped[datetime] = mapped_column(Utc)
    published_at: Mapped[datetime | None] = mapped_column(Utc)
    start_before: Mapped[datetime | None] = mapped_column(Utc)
    worker_id: Mapped[str | None] = mapped_column(ForeignKey("workers.id"))
    claimed_at: Mapped[datetime | None] = mapped_column(Utc)
    rendering_at: Mapped[datetime | None] = mapped_column(Utc)
    lease_expires_at: Mapped[datetime | None] = mapped_column(Utc)
    ended_at: Mapped[datetime | None] = mapped_column(Utc)

    __table_args__ = (
        _partial("ix_packs_running", "worker_id", where=text("state = 'running'")),
        _partial("ix_packs_oldest", "batch_id", "pair", "released_at", where=text("state = 'queued'")),
        _partial("ix_packs_suiting", "batch_id", "pair", "pack_key", "released_at", where=text("state = 'queued'")),
        _partial("ix_packs_ended", "pair", "ended_at", where=text("ended_at IS NOT NULL")),
    )  # fmt: skip


class Job(Table):
    """One image to render."""

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"))
    #: place in the batch, from 1
    number: Mapped[int] = mapped_column(BigId)
    spec_digest: Mapped[str] = mapped_column(String(64))
    repeat: Mapped[int]
    spec: Mapped[str] = mapped_column(Text)
    pack_key: Mapped[str] = mapped_column(String(120))
    meta: Mapped[dict[str, str]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(State(10))
    attempts: Mapped[int] = mapped_column(default=0)
    #: it was in a pack that failed or died: its next pack holds it alone, so that a poisoned job harms no other
    isolated: Mapped[bool] = mapped_column(default=False)
    #: without a foreign key: one look-up for each job, of a pack that the same statement makes (``farm/queueing.py``)
    pack_id: Mapped[str | None] = mapped_column(String(32))
    error_code: Mapped[str | None] = mapped_column(String(40))
    error: Mapped[str | None] = mapped_column(Text)
    #: of the last try that failed
    traceback: Mapped[str | None] = mapped_column(Text)
    #: the next try waits until then
    retry_at: Mapped[datetime | None] = mapped_column(Utc)

    __table_args__ = (
        Index("uq_jobs_identity", "batch_id", "spec_digest", "repeat", unique=True),
        Index("ix_jobs_number", "batch_id", "number"),
        _partial("ix_jobs_pending", "batch_id", "pack_key", "id", where=text("state = 'pending'")),
        _partial("ix_jobs_pending_oldest", "batch_id", "isolated", "id", where=text("state = 'pending'")),
        _partial("ix_jobs_failed", "batch_id", "id", where=text("state = 'failed'")),
        # SQLite would not use it in a join if it were partial there.
        Index("ix_jobs_pack_id", "pack_id", postgresql_where=text("pack_id IS NOT NULL")),
    )  # fmt: skip


class Worker(Table):
    """One worker process on one device."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    process_id: Mapped[int]
    device: Mapped[str] = mapped_column(String(255))
    pair: Mapped[str] = mapped_column(String(63))
    #: by what the pair was defined where the worker started (``ModelPair.definition``)
    definition: Mapped[str | None] = mapped_column(String(64))
    pair_fingerprint: Mapped[str | None] = mapped_column(String(64))
    #: loading, ready, stopped, failed
    state: Mapped[str] = mapped_column(String(10))
    error: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime] = mapped_column(Utc)
    seen_at: Mapped[datetime] = mapped_column(Utc)
    #: messages that were not ours, or of another version
    num_refused: Mapped[int] = mapped_column(server_default=text("0"))
    #: it takes no more packs, and no other starts in its place (``farm.draining``)
    draining_since: Mapped[datetime | None] = mapped_column(Utc)
    #: how its GPU was when it was seen last: memory_used_bytes, memory_total_bytes, utilisation (0 to 1),
    #: temperature_celsius, power_watts, and when, by the worker's clock (``at``)
    reading: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))


class EnvironmentRow(Table):
    """What is the same for a thousand images (``schemas.provenance.Environment``), once."""

    __tablename__ = "environments"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    content: Mapped[dict[str, Any]] = mapped_column(JSON)


class Image(Table):
    """One file in the image store. Linked jobs share it."""

    __tablename__ = "images"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    uri: Mapped[str] = mapped_column(Text, unique=True)
    sha256: Mapped[str] = mapped_column(String(64))
    pixel_sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]
    width: Mapped[int]
    height: Mapped[int]
    format: Mapped[str] = mapped_column(String(8))
    spec_digest: Mapped[str] = mapped_column(String(64))
    pair_fingerprint: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(Utc)

    #: of one spec there are few: those of each weights
    __table_args__ = (Index("ix_images_identity", "spec_digest"),)


class Result(Table):
    """How one job was done: exactly one row for each job that is ``done``.

    The image alone has a foreign key: job, environment, worker and pack are known when the row is written
    (``farm/finishing.py``), none is removed while a result names it, and `nightshift verify` looks.
    """

    __tablename__ = "results"

    job_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    environment_digest: Mapped[str] = mapped_column(String(64))
    provenance: Mapped[dict[str, Any]] = mapped_column(JSON)
    worker_id: Mapped[str] = mapped_column(String(32))
    pack_id: Mapped[str] = mapped_column(String(32))
    #: from 1; 0: linked to an image that was there
    attempt: Mapped[int]
    #: of the job's forward pass, shared by its images
    render_seconds: Mapped[float]
    #: watermark, encoding, hashing and writing of this image
    finish_seconds: Mapped[float]
    finished_at: Mapped[datetime] = mapped_column(Utc, index=True)

    #: looked at when a pack is removed, whose own jobs are gone by then
    __table_args__ = (_partial("ix_results_linked", "pack_id", where=text("attempt = 0")),)


class Lease(Table):
    """A named right that one process holds at a time: ``dispatcher`` lets one dispatcher act."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    holder: Mapped[str] = mapped_column(String(32))
    expires_at: Mapped[datetime] = mapped_column(Utc)


class ScheduleRow(Table):
    """An order that is submitted again and again (``schemas.schedule.Schedule``)."""

    __tablename__ = "schedules"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    cron: Mapped[str] = mapped_column(Text)
    timezone: Mapped[str] = mapped_column(Text)
    #: ``schemas.submit_order.SubmitOrder``
    order: Mapped[dict[str, Any]] = mapped_column(JSON)
    missed: Mapped[str] = mapped_column(String(10))
    paused: Mapped[bool] = mapped_column(server_default=false())
    created_at: Mapped[datetime] = mapped_column(Utc)
    next_due_at: Mapped[datetime] = mapped_column(Utc)


class Firing(Table):
    """One time of a schedule, and what came of it. Its row makes it happen once, the fence lets one process submit."""

    __tablename__ = "firings"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    schedule_id: Mapped[int] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"))
    due_at: Mapped[datetime] = mapped_column(Utc)
    state: Mapped[str] = mapped_column(State(10))
    #: of whoever submits it now
    fence: Mapped[str | None] = mapped_column(String(32), unique=True)
    lease_expires_at: Mapped[datetime | None] = mapped_column(Utc)
    retry_at: Mapped[datetime | None] = mapped_column(Utc)
    tries: Mapped[int] = mapped_column(server_default=text("0"))
    #: that it made; while it is submitted, the one that is staged
    batch_id: Mapped[int | None] = mapped_column(ForeignKey("batches.id", ondelete="SET NULL"), index=True)
    error: Mapped[str | None] = mapped_column(Text)
    ended_at: Mapped[datetime | None] = mapped_column(Utc)

    __table_args__ = (
        UniqueConstraint("schedule_id", "due_at"),
        _partial("ix_firings_live", "due_at", where=text("state IN ('due', 'submitting')")),
    )  # fmt: skip
