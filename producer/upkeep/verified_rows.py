"""The rows that `nightshift verify` looks at, a page at a time. Nothing here changes a row."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Text, and_, case, cast, exists, func, literal, or_, select, tuple_
from sqlalchemy.orm import aliased

from farm.database import Database, Transaction, question
from farm.job_states import STATE
from farm.leases import DISPATCHER
from producer.upkeep.recorded_jobs import CountedBatch, LivePack
from schemas.states import BatchState, JobState, PackState
from schemas.tables import Batch, EnvironmentRow, Image, Job, Lease, Pack, Result, Worker

_PAGE: Final = 500
_SHOWN: Final = 20
_ENDED_PACKS: Final = tuple(state for state in PackState if state not in (PackState.QUEUED, PackState.RUNNING))
_OTHER: Final = aliased(Result)
_OTHERS_JOB: Final = aliased(Job)

_ITS_PACK: Final = aliased(Pack)


def _unless(name: str, its_row: ColumnElement[bool]) -> ColumnElement[str]:
    missing = and_(Result.job_id.is_not(None), ~exists().where(its_row).correlate(Result))
    return case((missing, literal(f"{name} ")), else_=literal(""))


#: what a result names and is not there, where no foreign key sees to it
_LACKING: Final = (
    _unless("environment", EnvironmentRow.digest == Result.environment_digest)
    + _unless("worker", Worker.id == Result.worker_id)
    + _unless("pack", _ITS_PACK.id == Result.pack_id)
)
_JOB: Final = (
    *(Job.id, Job.batch_id, Job.number, Job.state, Job.spec, Job.spec_digest, Job.pack_id),
    *(Pack.state.label("pack_state"), Result.image_id, Image.spec_digest.label("image_spec_digest")),
    *(Image.uri, Image.sha256, Image.pixel_sha256, Image.size_bytes, Image.width, Image.height, Image.format),
    _LACKING.label("lacking"),
    cast(Result.provenance, Text).label("provenance"),  # as text: what is no JSON is a finding, and not an error
)


@question
def ledger_flaws(tx: Transaction) -> list[str]:
    """What SQLite's own checks say of the file; PostgreSQL keeps its pages and keys itself."""
    if tx.dialect != "sqlite":
        return []
    damage = [row[0] for row in tx.connection.exec_driver_sql(f"PRAGMA quick_check({_SHOWN})") if row[0] != "ok"]
    dangling = tx.connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(_SHOWN)
    return [*damage, *(f"row {row} of {table} names a row of {parent} that is not there" for table, row, parent, _ in
                       dangling)]  # fmt: skip


@question
def _batch_ids_page(tx: Transaction, after: int) -> Sequence[int]:
    return tx.execute(select(Batch.id).where(Batch.id > after).order_by(Batch.id).limit(_PAGE)).scalars().all()


def batch_ids(database: Database) -> Iterator[int]:
    """Every batch, the oldest first."""
    after = 0
    while page := _batch_ids_page(database, after):
        yield from page
        after = page[-1]


@question
def counted_batch(tx: Transaction, batch_id: int) -> CountedBatch | None:
    """One statement, so that counters and jobs are of one moment. None for a batch that was discarded meanwhile."""
    counters = [getattr(Batch, f"num_{state}") for state in JobState]
    counted = select(Batch.state, *counters, STATE.label("job_state"), func.count(Job.id).label("num_jobs"))
    jobs_of = counted.outerjoin(Job, Job.batch_id == Batch.id).where(Batch.id == batch_id)
    rows = tx.execute(jobs_of.group_by(Batch.id, "job_state")).all()
    if not rows:
        return None
    counters_of = {state: getattr(rows[0], f"num_{state}") for state in JobState}
    return CountedBatch(batch_id, rows[0].state, counters_of, {row.job_state: row.num_jobs for row in rows})


@question
def _jobs_page(tx: Transaction, batch_id: int, after: tuple[int, int], *, batch_alone: bool) -> Sequence[Row[Any]]:
    earlier = exists().where(_OTHER.image_id == Result.image_id, _OTHER.job_id < Result.job_id)
    if batch_alone:
        earlier = earlier.where(_OTHERS_JOB.id == _OTHER.job_id, _OTHERS_JOB.batch_id == batch_id)
    jobs = select(*_JOB, (~earlier).label("is_first")).select_from(Job).outerjoin(Pack, Pack.id == Job.pack_id)
    pictured = jobs.outerjoin(Result, Result.job_id == Job.id).outerjoin(Image, Image.id == Result.image_id)
    wanted = pictured.where(Job.batch_id == batch_id, tuple_(Job.number, Job.id) > after)
    return tx.execute(wanted.order_by(Job.number, Job.id).limit(_PAGE)).all()


def jobs(database: Database, batch_id: int, *, batch_alone: bool) -> Iterator[Row[Any]]:
    """The batch's jobs, each with its pack, result and image, in the manifest's order.

    ``is_first``: no earlier job has the same image; with ``batch_alone``, none of this batch.
    """
    after = (0, 0)
    while page := _jobs_page(database, batch_id, after, batch_alone=batch_alone):
        yield from page
        after = (page[-1].number, page[-1].id)


@question
def num_jobs_of(tx: Transaction, image_id: int) -> int:
    """How many jobs share the image."""
    return int(tx.execute(select(func.count()).where(Result.image_id == image_id)).scalar_one())


@question
def live_packs(tx: Transaction, batch_id: int) -> list[LivePack]:
    """The batch's packs that have not ended as a pack can."""
    held = select(func.count()).where(Job.pack_id == Pack.id, Job.state == JobState.QUEUED).scalar_subquery()
    columns = (Pack.id, Pack.batch_id, Pack.state, Pack.lease_expires_at, held.label("num_jobs"))
    rows = tx.execute(select(*columns).where(Pack.batch_id == batch_id, Pack.state.not_in(_ENDED_PACKS)))
    return [LivePack(**row._mapping) for row in rows]


@question
def has_dispatcher(tx: Transaction) -> bool:
    """Whether one lives."""
    lease = select(Lease.name).where(Lease.name == DISPATCHER, Lease.expires_at > tx.from_now())
    return tx.execute(lease).first() is not None


@question
def _unused_images_page(tx: Transaction, after: int) -> Sequence[Row[Any]]:
    unused = ~exists().where(Result.image_id == Image.id)
    wanted = select(Image.id, Image.uri).where(Image.id > after, unused)
    return tx.execute(wanted.order_by(Image.id).limit(_PAGE)).all()


def unused_images(database: Database) -> Iterator[Row[Any]]:
    """Rows of ``images`` that no result names."""
    after = 0
    while page := _unused_images_page(database, after):
        yield from page
        after = page[-1].id


@question
def _lone_results_page(tx: Transaction, after: int) -> Sequence[int]:
    alone = ~exists().where(Job.id == Result.job_id)
    wanted = select(Result.job_id).where(Result.job_id > after, alone)
    return tx.execute(wanted.order_by(Result.job_id).limit(_PAGE)).scalars().all()


def lone_results(database: Database) -> Iterator[int]:
    """The jobs that results name and that are not there."""
    after = 0
    while page := _lone_results_page(database, after):
        yield from page
        after = page[-1]


@question
def recorded(tx: Transaction, uris: Iterable[str]) -> frozenset[str]:
    """Those of the URIs that have a row."""
    return frozenset(tx.execute(select(Image.uri).where(Image.uri.in_(list(uris)))).scalars())


@question
def recorded_elsewhere(tx: Transaction, sha256s: Iterable[str]) -> frozenset[str]:
    """Those of the contents that have a row, whatever its URI: the store may have been moved, or have two names."""
    return frozenset(tx.execute(select(Image.sha256).where(Image.sha256.in_(list(sha256s)))).scalars())


@question
def records_images_below(tx: Transaction, url: str) -> bool:
    """Whether any image has its row there."""
    below = select(Image.id).where(Image.uri.startswith(f"{url}/", autoescape=True)).limit(1)
    return tx.execute(below).first() is not None


@question
def _inputs_page(tx: Transaction, after: int) -> Sequence[Row[Any]]:
    has_inputs = or_(Job.spec.like('%"init_image":"%'), Job.spec.like('%"loras":[%'))
    wanted = select(Job.id, Job.spec).where(Job.id > after, has_inputs)
    return tx.execute(wanted.order_by(Job.id).limit(_PAGE)).all()


def specs_with_inputs(database: Database) -> Iterator[str]:
    """The specs, as JSON, that name an init image or LoRAs."""
    after = 0
    while page := _inputs_page(database, after):
        yield from (row.spec for row in page)
        after = page[-1].id


@question
def is_submitting(tx: Transaction, since: datetime) -> bool:
    """Whether a batch is being read now, or has been accepted since that time."""
    coming = or_(Batch.state == BatchState.STAGING, Batch.opened_at >= since)
    return tx.execute(select(Batch.id).where(coming).limit(1)).first() is not None
