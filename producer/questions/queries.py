"""Questions to the ledger. Nothing here changes a row."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Self

from sqlalchemy import ColumnElement, Row, Select, and_, func, or_, select, union_all

from farm.database import Database, Transaction, question
from farm.job_states import STATE
from producer.dispatching.release import work_of
from schemas.column_types import Utc
from schemas.errors import NotFoundError
from schemas.fields import text_flaw
from schemas.states import BatchState, JobState, PackState
from schemas.tables import Batch, Image, Job, Pack, Result, Worker

_PAGE: Final = 500
_LIVE: Final = (PackState.QUEUED, PackState.RUNNING)


@dataclass(frozen=True)
class Waiting:
    """Released packs of a pair that nobody has claimed. ``num_old``: told of long ago."""

    num_packs: int
    num_old: int


@dataclass(frozen=True)
class BatchSummary:
    """A batch and its counters."""

    id: int
    name: str
    pair: str
    state: str
    priority: int
    weight: float
    window: str | None
    not_before: datetime | None
    deadline: datetime | None
    created_at: datetime
    num_pending: int
    num_queued: int
    num_running: int
    num_done: int
    num_failed: int
    num_canceled: int
    #: how it came to be (``schemas.submit_order.Origin`` as JSON)
    origin: dict[str, Any] | None = None

    @property
    def num_ended(self) -> int:
        return self.num_done + self.num_failed + self.num_canceled

    @property
    def num_jobs(self) -> int:
        return self.num_ended + self.num_pending + self.num_queued + self.num_running

    @property
    def ended(self) -> bool:
        """Nothing more happens to it by itself."""
        return self.state != BatchState.STAGING and self.num_ended == self.num_jobs

    @property
    def shown_state(self) -> str:
        """In a word, for people: one whose last job ended while it was paused has ended, too."""
        return "ended" if self.ended and self.state != BatchState.CANCELED else self.state

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        """Of a row that has the columns of ``SUMMARY``, and maybe others."""
        return cls(**{name: getattr(row, name) for name in cls.__dataclass_fields__})

    def as_json(self) -> dict[str, Any]:
        times = ("created_at", "not_before", "deadline")
        return {
            **asdict(self),
            **{name: time.isoformat() for name in times if (time := getattr(self, name))},
            "num_jobs": self.num_jobs,
            "ended": self.ended,
        }


#: the columns that ``BatchSummary`` is made of
SUMMARY: Final = tuple(getattr(Batch, name) for name in BatchSummary.__dataclass_fields__)


@question
def waiting(tx: Transaction, old_seconds: float) -> dict[str, Waiting]:
    """pair → its queued packs. Old is what was published, or released, so long ago."""
    num_old = func.count().filter(_told(tx, old_seconds)).label("num_old")
    packs = select(Pack.pair, func.count().label("num_packs"), num_old).where(Pack.state == PackState.QUEUED)
    return {row.pair: Waiting(row.num_packs, row.num_old) for row in tx.execute(packs.group_by(Pack.pair))}


@question
def queued_packs(tx: Transaction, pair: str, old_seconds: float = 0.0) -> Sequence[str]:
    """The pair's packs that wait for a worker: a few for each live one, so a short list."""
    queued = select(Pack.id).where(Pack.pair == pair, Pack.state == PackState.QUEUED)
    return tx.execute(queued.where(_told(tx, old_seconds))).scalars().all()


def _told(tx: Transaction, seconds: float) -> ColumnElement[bool]:
    """Whoever could claim the pack was told so long ago, or should have been."""
    return func.coalesce(Pack.published_at, Pack.released_at, type_=Utc) <= tx.from_now(-seconds)


@question
def work_under_way(tx: Transaction, pair: str) -> Mapping[int, float]:
    """batch → the work in its packs that are queued or running, for the batches of the pair."""
    packs = select(Pack.batch_id, Pack.pack_key, Pack.num_jobs).where(Pack.pair == pair)
    # Each state has an index of its own.
    live = union_all(*(packs.where(Pack.state == state) for state in _LIVE)).subquery().c
    num_jobs = func.sum(live.num_jobs).label("num_jobs")
    rows = tx.execute(select(live.batch_id, live.pack_key, num_jobs).group_by(live.batch_id, live.pack_key))
    work = defaultdict[int, float](float)
    for row in rows:
        work[row.batch_id] += work_of(row.pack_key, row.num_jobs)
    return work


@question
def batch_summary(tx: Transaction, batch_id: int) -> BatchSummary:
    """The batch of this number. Raises NotFoundError."""
    found = _youngest(tx, Batch.id == batch_id)
    if found is None:
        raise NotFoundError(f"no batch {batch_id}; `nightshift status` lists them")
    return found


@question
def summaries_of(tx: Transaction, batch_ids: Sequence[int]) -> list[BatchSummary]:
    """The batches of these numbers, in their order. Raises NotFoundError."""
    rows = tx.execute(select(*SUMMARY).where(Batch.id.in_(batch_ids)))
    found = {row.id: BatchSummary.of(row) for row in rows}
    if missing := [batch_id for batch_id in batch_ids if batch_id not in found]:
        raise NotFoundError(f"no batch {missing[0]}; `nightshift status` lists them")
    return [found[batch_id] for batch_id in batch_ids]


@question
def going_on(tx: Transaction) -> Sequence[int]:
    """Every batch that has not ended, the oldest first."""
    left = or_(Batch.num_pending + Batch.num_queued + Batch.num_running > 0, Batch.state == BatchState.STAGING)
    return tx.execute(select(Batch.id).where(left).order_by(Batch.id)).scalars().all()


@dataclass(frozen=True)
class Twin:
    """A pending job, and an image of the same spec and weights."""

    job_id: int
    image_id: int
    uri: str


@question
def twins(tx: Transaction, batch_id: int, pair_fingerprint: str, after: int, limit: int) -> list[Twin]:
    """Pending jobs of the batch behind the job ``after`` with their twins, in order. A job may have several."""
    same = and_(Image.spec_digest == Job.spec_digest, Image.pair_fingerprint == pair_fingerprint)
    pending = (Job.batch_id == batch_id, Job.state == JobState.PENDING, Job.id > after)
    columns = select(Job.id, Image.id.label("image_id"), Image.uri).join(Image, same)
    rows = tx.execute(columns.where(*pending).order_by(Job.id, Image.id).limit(limit))
    return [Twin(row.id, row.image_id, row.uri) for row in rows]


@question
def find_batch(tx: Transaction, text: str) -> BatchSummary:
    """The batch that a user means: the one of this number; only if there is none, the youngest of this name.

    Raises:
        NotFoundError: there is neither.
    """
    is_id = text.isascii() and text.isdigit() and len(text) < 10
    found = _youngest(tx, Batch.id == int(text)) if is_id else None
    if found is None and text_flaw(text) is None:
        found = _youngest(tx, Batch.name == text)
    if found is None:
        raise NotFoundError(f"no batch {text!r}; `nightshift status` lists them")
    return found


def _youngest(tx: Transaction, wanted: ColumnElement[bool]) -> BatchSummary | None:
    row = tx.execute(select(*SUMMARY).where(wanted).order_by(Batch.id.desc()).limit(1)).one_or_none()
    return None if row is None else BatchSummary.of(row)


@question
def waiting_pairs(tx: Transaction) -> frozenset[str]:
    """The pairs of all open batches that have not ended."""
    left = Batch.num_pending + Batch.num_queued + Batch.num_running > 0
    return frozenset(tx.execute(select(Batch.pair).where(Batch.state == BatchState.OPEN, left)).scalars())


@question
def workers_seen(tx: Transaction, host: str, within_seconds: float) -> Sequence[Row[Any]]:
    """Rows of the workers of this host that were seen lately, live or not, the youngest first."""
    seen = select(Worker).where(Worker.host == host, Worker.seen_at > tx.from_now(-within_seconds))
    return tx.execute(seen.order_by(Worker.started_at.desc())).all()


@question
def batch_summaries(tx: Transaction, limit: int) -> list[BatchSummary]:
    """The youngest batches, the youngest first."""
    rows = tx.execute(select(*SUMMARY).order_by(Batch.id.desc()).limit(limit))
    return [BatchSummary.of(row) for row in rows]


@question
def failures(tx: Transaction, batch_id: int, limit: int) -> list[tuple[str, int]]:
    """Reasons of failed jobs and how many jobs each has, the commonest first."""
    failed = select(Job.error, func.count().label("num")).where(Job.batch_id == batch_id, Job.state == JobState.FAILED)
    counted = failed.group_by(Job.error).order_by(func.count().desc()).limit(limit)
    return [(row.error or "", row.num) for row in tx.execute(counted)]


_RESULT: Final = (
    *(Job.number, Job.id, Job.spec, Job.meta, Job.spec_digest, Job.repeat),
    *(Image.uri, Image.sha256, Image.pixel_sha256, Image.size_bytes, Image.width, Image.height, Image.format),
    *(Result.provenance, Result.environment_digest, Result.worker_id, Result.attempt),
    *(Result.render_seconds, Result.finish_seconds, Result.finished_at),
)


def _done_jobs(batch_id: int) -> Select[Any]:
    return (
        select(*_RESULT)
        .join_from(Job, Result, Result.job_id == Job.id)
        .join(Image)
        .where(Job.batch_id == batch_id)
        .order_by(Job.number)
    )


def results(database: Database, batch_id: int) -> Iterator[Row[Any]]:
    """The batch's done jobs with their images, in the manifest's order, a page at a time."""
    return _paged(database, _done_jobs(batch_id))


@question
def sampled_results(tx: Transaction, batch_id: int, num_jobs: int, limit: int) -> Sequence[Row[Any]]:
    """At most ``limit`` done jobs with their images, evenly spread over the batch."""
    numbers = {1 + n * num_jobs // limit for n in range(limit)} if num_jobs > limit else range(1, num_jobs + 1)
    return tx.execute(_done_jobs(batch_id).where(Job.number.in_(numbers))).all()


def failed_jobs(database: Database, batch_id: int) -> Iterator[Row[Any]]:
    """Every failed job of the batch with its spec, attempts, error and traceback; in order, a page at a time."""
    columns = (Job.number, Job.spec, Job.attempts, Job.error_code, Job.error, Job.traceback)
    failed = select(*columns).where(Job.batch_id == batch_id, Job.state == JobState.FAILED)
    return _paged(database, failed.order_by(Job.number))


def outcomes(database: Database, batch_id: int) -> Iterator[Row[Any]]:
    """Every job of the batch with its state, its image's URI or None, and its error; in order, a page at a time."""
    jobs = select(Job.number, Job.spec, STATE.label("state"), Job.error, Image.uri).select_from(Job)
    pictured = jobs.outerjoin(Result, Result.job_id == Job.id).outerjoin(Image, Image.id == Result.image_id)
    return _paged(database, pictured.where(Job.batch_id == batch_id).order_by(Job.number))


def _paged(database: Database, jobs: Select[*tuple[Any, ...]]) -> Iterator[Row[Any]]:
    """The rows of a statement in the order of ``jobs.number``, so that a batch of a million takes no memory."""
    after = 0
    while page := _page(database, jobs, after):
        yield from page
        after = page[-1].number


@question
def _page(tx: Transaction, jobs: Select[*tuple[Any, ...]], after: int) -> Sequence[Row[Any]]:
    return tx.execute(jobs.where(Job.number > after).limit(_PAGE)).all()
