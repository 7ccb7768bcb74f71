"""What a report of a batch says in numbers. Counted by the ledger, so that a million jobs take no more memory than ten.

Nothing here changes a row.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Integer, Row, case, cast, extract, func, or_, select

from farm.database import Transaction, question
from producer.questions.queries import SUMMARY, BatchSummary
from schemas.errors import NotFoundError
from schemas.pack_key import HASH_CHARACTERS
from schemas.spec import JobSpec
from schemas.states import JobState
from schemas.tables import Batch, EnvironmentRow, Image, Job, Pack, Result, Worker

MAX_BARS: Final = 72
_SHOWN: Final = 20
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_WIDTHS: Final = (
    *(1, 2, 5, 10, 15, 30, _MINUTE, 2 * _MINUTE, 5 * _MINUTE, 10 * _MINUTE, 15 * _MINUTE, 30 * _MINUTE),
    *(_HOUR, 2 * _HOUR, 3 * _HOUR, 6 * _HOUR, 12 * _HOUR, _DAY, 7 * _DAY, 28 * _DAY),
)


@dataclass(frozen=True)
class Reason:
    """Why jobs failed, and the first of them."""

    code: str
    sentence: str
    num_jobs: int
    number: int
    prompt: str
    attempts: int
    traceback: str | None


@dataclass(frozen=True)
class Throughput:
    """How many images were rendered in each stretch of ``seconds``, from ``begins`` on. ``one_in``: by one job in so
    many, which stands for the others."""

    begins: datetime
    seconds: int
    nums: tuple[int, ...]
    one_in: int = 1

    @property
    def rates(self) -> tuple[float, ...]:
        """Images a second."""
        return tuple(num / self.seconds for num in self.nums)


@dataclass(frozen=True)
class DeviceWork:
    """What one device did for the batch. ``seconds``: from its first pack's begin to its last one's end;
    ``busy_share``: the part of them in which a pack was in hand."""

    host: str
    device: str
    num_images: int
    num_failed: int
    seconds: float
    busy_share: float

    @property
    def images_per_second(self) -> float | None:
        return self.num_images / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True)
class Counted:
    """Something, and how many jobs or images it is of."""

    content: Any
    num: int


@dataclass(frozen=True)
class Figures:
    """Of one batch at one moment. ``num_linked``: done without rendering; ``shapes``: of jobs, as ``shape_of`` cuts
    them; ``environments``: of images, as ``schemas.provenance`` has them. Each list has the commonest first."""

    now: datetime
    batch: BatchSummary
    opened_at: datetime | None
    num_linked: int
    size_bytes: int
    first_at: datetime | None
    last_at: datetime | None
    throughput: Throughput | None
    reasons: tuple[Reason, ...]
    devices: tuple[DeviceWork, ...]
    environments: tuple[Counted, ...]
    shapes: tuple[Counted, ...]

    @property
    def num_rendered(self) -> int:
        return self.batch.num_done - self.num_linked

    @property
    def render_seconds(self) -> float:
        """From the first image to the last, closed hours and all."""
        return (self.last_at - self.first_at).total_seconds() if self.first_at and self.last_at else 0.0


@question
def reasons(tx: Transaction, batch_id: int) -> tuple[Reason, ...]:
    """Why jobs of the batch failed, the commonest reason first."""
    return _reasons(tx, batch_id)


@question
def figures(tx: Transaction, batch_id: int) -> Figures:
    """In one transaction, so that they fit each other as far as the database keeps it. Raises NotFoundError."""
    row = tx.execute(select(*SUMMARY, Batch.opened_at).where(Batch.id == batch_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"no batch {batch_id}; `nightshift status` lists them")
    summary = {name: value for name, value in row._mapping.items() if name != "opened_at"}
    times = _times(tx, batch_id)
    width = stretch_seconds(times.first, times.last)
    stretches = _stretches(tx, batch_id, width) if times.first else []
    return Figures(
        now=tx.now,
        batch=BatchSummary(**summary),
        opened_at=row.opened_at,
        num_linked=times.num_linked or 0,
        size_bytes=times.size_bytes or 0,
        first_at=times.first,
        last_at=times.last,
        throughput=_throughput(stretches, width),
        reasons=_reasons(tx, batch_id),
        devices=_devices(tx, batch_id, stretches),
        environments=_environments(tx, batch_id),
        shapes=_shapes(tx, batch_id),
    )


def _times(tx: Transaction, batch_id: int) -> Row[Any]:
    rendered_at = case((Result.attempt > 0, Result.finished_at))
    first, last = func.min(rendered_at).label("first"), func.max(rendered_at).label("last")
    linked = func.count(case((Result.attempt == 0, 1))).label("num_linked")
    size = func.sum(Image.size_bytes).label("size_bytes")
    done = select(first, last, linked, size).join_from(Job, Result, Result.job_id == Job.id).join(Image)
    return tx.execute(done.where(Job.batch_id == batch_id)).one()


def stretch_seconds(first: datetime | None, last: datetime | None) -> int:
    """Of a stretch, in seconds: a round number that makes at most ``MAX_BARS`` of them."""
    seconds = (last - first).total_seconds() if first and last else 0.0
    return next((width for width in _WIDTHS if seconds / width <= MAX_BARS - 1), _WIDTHS[-1])


def _stretches(tx: Transaction, batch_id: int, width: int) -> Sequence[Row[Any]]:
    """Rendered images by stretch (counted from 1970) and worker."""
    stretch = cast(extract("epoch", Result.finished_at) // width, Integer).label("stretch")
    counted = select(stretch, Result.worker_id, func.count().label("num")).join_from(
        Job, Result, Result.job_id == Job.id
    )
    rendered = counted.where(Job.batch_id == batch_id, Result.attempt > 0)
    return tx.execute(rendered.group_by("stretch", Result.worker_id).order_by("stretch")).all()


def _throughput(stretches: Sequence[Row[Any]], width: int) -> Throughput | None:
    if not stretches:
        return None
    first, last = stretches[0].stretch, stretches[-1].stretch
    nums = [0] * (last - first + 1)
    for row in stretches:
        nums[row.stretch - first] += row.num
    return Throughput(datetime.fromtimestamp(first * width, UTC), width, tuple(nums))


def _reasons(tx: Transaction, batch_id: int) -> tuple[Reason, ...]:
    counted = select(Job.error_code, Job.error, func.count().label("num"), func.min(Job.id).label("first"))
    failed = counted.where(Job.batch_id == batch_id, Job.state == JobState.FAILED)
    grouped = failed.group_by(Job.error_code, Job.error)
    rows = tx.execute(grouped.order_by(func.count().desc(), func.min(Job.id)).limit(_SHOWN)).all()
    examples = {job.id: job for job in tx.execute(select(Job).where(Job.id.in_([row.first for row in rows])))}
    return tuple(_reason(row, examples[row.first]) for row in rows)


def _reason(row: Any, job: Any) -> Reason:
    prompt = JobSpec.from_json(job.spec).prompt
    return Reason(row.error_code or "", row.error or "", row.num, job.number, prompt, job.attempts, job.traceback)


def _devices(tx: Transaction, batch_id: int, stretches: Sequence[Row[Any]]) -> tuple[DeviceWork, ...]:
    """Workers that followed each other on one device are one."""
    num_images, num_failed = defaultdict[str, int](int), _failed_by_worker(tx, batch_id)
    for row in stretches:
        num_images[row.worker_id] += row.num
    busy = {(row.host, row.device): _share(row) for row in _busy(tx, batch_id)}
    seats = defaultdict[tuple[str, str], list[str]](list)
    begun = select(Pack.worker_id).where(*_begun(batch_id))
    known = or_(Worker.id.in_(num_images.keys() | num_failed.keys()), Worker.id.in_(begun))
    for worker in tx.execute(select(Worker).where(known).order_by(Worker.host, Worker.device)):
        seats[worker.host, worker.device].append(worker.id)
    return tuple(
        DeviceWork(
            *seat,
            sum(num_images[worker_id] for worker_id in worker_ids),
            sum(num_failed.get(worker_id, 0) for worker_id in worker_ids),
            *busy.get(seat, (0.0, 0.0)),
        )
        for seat, worker_ids in seats.items()
    )


def _failed_by_worker(tx: Transaction, batch_id: int) -> dict[str, int]:
    failed = select(Pack.worker_id, func.count().label("num")).join_from(Job, Pack, Job.pack_id == Pack.id)
    of_batch = (Job.batch_id == batch_id, Job.state == JobState.FAILED, Pack.worker_id.is_not(None))
    return {row.worker_id: row.num for row in tx.execute(failed.where(*of_batch).group_by(Pack.worker_id))}


def _busy(tx: Transaction, batch_id: int) -> Iterator[Row[Any]]:
    """For each device the seconds in which a pack was in hand, once where packs overlap: the next one begins while the
    images of the last are written, and a CPU may have several workers."""
    until = func.max(Pack.ended_at).over(
        partition_by=(Worker.host, Worker.device), order_by=(Pack.rendering_at, Pack.id), rows=(None, -1)
    )
    columns = (Worker.host, Worker.device, Pack.rendering_at, Pack.ended_at, until.label("until"))
    packs = select(*columns).join_from(Pack, Worker).where(*_begun(batch_id)).subquery().c
    began = case((packs.until > packs.rendering_at, packs.until), else_=packs.rendering_at)
    seconds = case((packs.ended_at > began, _seconds_between(tx, began, packs.ended_at)), else_=0)
    sums = (func.sum(seconds).label("busy"), func.min(packs.rendering_at).label("first"),
            func.max(packs.ended_at).label("last"))  # fmt: skip
    yield from tx.execute(select(packs.host, packs.device, *sums).group_by(packs.host, packs.device))


def _begun(batch_id: int) -> tuple[ColumnElement[bool], ...]:
    """Packs of the batch that were rendered, or began to be, and are no more."""
    return Pack.batch_id == batch_id, Pack.rendering_at.is_not(None), Pack.ended_at.is_not(None)


def _seconds_between(tx: Transaction, begin: Any, end: Any) -> ColumnElement[Any]:
    """SQLite has no difference of times, and its epochs are whole seconds."""
    if tx.dialect == "sqlite":
        return (func.julianday(end) - func.julianday(begin)) * _DAY
    return extract("epoch", end - begin)


def _share(busy: Any) -> tuple[float, float]:
    """From the first begin to the last end in seconds, and the busy share of it."""
    seconds = (busy.last - busy.first).total_seconds()
    return seconds, min(1.0, float(busy.busy) / seconds) if seconds > 0 else 0.0


def _environments(tx: Transaction, batch_id: int) -> tuple[Counted, ...]:
    counted = select(Result.environment_digest, func.count().label("num")).join_from(
        Job, Result, Result.job_id == Job.id
    )
    grouped = counted.where(Job.batch_id == batch_id).group_by(Result.environment_digest)
    rows = tx.execute(grouped.order_by(func.count().desc()).limit(_SHOWN)).all()
    wanted = EnvironmentRow.digest.in_([row.environment_digest for row in rows])
    contents = {row.digest: row.content for row in tx.execute(select(EnvironmentRow).where(wanted))}
    return tuple(Counted(contents[row.environment_digest], row.num) for row in rows)


def _shapes(tx: Transaction, batch_id: int) -> tuple[Counted, ...]:
    """``schemas.pack_key.shape_of``, in SQL: a batch may have as many keys as jobs."""
    told = case((Job.pack_key.like("%/%/%/%/%"), 1 + HASH_CHARACTERS), else_=0)
    cut = func.rtrim(func.substr(Job.pack_key, 1, func.length(Job.pack_key) - told), "/").label("shape")
    by_shape = select(cut, func.count().label("num")).where(Job.batch_id == batch_id).group_by("shape")
    rows = tx.execute(by_shape.order_by(func.count().desc(), cut).limit(_SHOWN))
    return tuple(Counted(row.shape, row.num) for row in rows)
