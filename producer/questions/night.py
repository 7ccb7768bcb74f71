"""The night so far, for who comes in the morning: images, failures, batches, workers. Nothing here changes a row."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final, get_args

from sqlalchemy import func, or_, select

from farm.database import Database, Transaction, question
from farm.workers import Standing, live_workers, seated_workers
from producer.questions.outlook import Outlook, outlooks
from producer.questions.prospect import Prospects
from producer.questions.queries import SUMMARY, BatchSummary, waiting_pairs
from producer.questions.rate import rendered_per_second
from schemas.settings import Settings
from schemas.states import JobState
from schemas.tables import Batch, Job, Pack, Result
from schemas.windows import Window

_DAY: Final = timedelta(days=1)
#: a window that opened earlier is no night any more
_LONGEST_NIGHT: Final = timedelta(days=3)
_SHOWN_BATCHES: Final = 20
_SHOWN_REASONS: Final = 5


@dataclass(frozen=True)
class SeatedWorker:
    """The last worker of a device. ``silent``: it neither stopped nor is heard of; ``out of service``: it failed, and
    none was started in its place; ``drained``: none is to be, until somebody says so."""

    host: str
    device: str
    pair: str
    standing: Standing
    seen_at: datetime
    error: str | None

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "seen_at": self.seen_at.isoformat()}


@dataclass(frozen=True)
class Rendered:
    """``num_images``: rendered since the night began, linked ones not counted; ``images_per_second``: over the last ten
    minutes, None where none was rendered in them."""

    num_images: int
    images_per_second: float | None


@dataclass(frozen=True)
class Failed:
    """Jobs that failed and were not tried again. ``reasons``: the commonest, each with its number of jobs."""

    num_jobs: int
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Night:
    """``batches``: those that have not ended, and the youngest of the others, the youngest first."""

    since: datetime
    rendered: Rendered
    failed: Failed
    batches: tuple[tuple[BatchSummary, Outlook], ...]
    num_more_batches: int
    workers: tuple[SeatedWorker, ...]
    live_workers: dict[str, int]
    unserved_pairs: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "since": self.since.isoformat(),
            "num_images": self.rendered.num_images,
            "images_per_second": self.rendered.images_per_second,
            "num_failed": self.failed.num_jobs,
            "failures": [{"reason": reason, "num_jobs": num} for reason, num in self.failed.reasons],
            "batches": [{**batch.as_json(), **ahead.as_json()} for batch, ahead in self.batches],
            "num_more_batches": self.num_more_batches,
            "workers": [worker.as_json() for worker in self.workers],
            "live_workers": self.live_workers,
            "unserved_pairs": list(self.unserved_pairs),
        }


def night(database: Database, settings: Settings, now: datetime) -> Night:
    """From the last opening of the farm's window, or over the last day, to ``now`` by the ledger's clock."""
    since = night_began(now, settings.window)
    live = live_workers(database, settings.lease_seconds)
    batches, num_more = _batches(database)
    return Night(
        since=since,
        rendered=_rendered(database, since),
        failed=_failed(database, since),
        batches=tuple(outlooks(database, batches, settings.window, Prospects(database, settings))),
        num_more_batches=num_more,
        workers=_workers(database, since, settings.lease_seconds),
        live_workers=live,
        unserved_pairs=tuple(sorted(waiting_pairs(database) - live.keys())),
    )


def night_began(now: datetime, farm_window: str) -> datetime:
    """When the farm's window last opened, if that was within three days; else a day ago."""
    opened = Window.parse(farm_window).last_opening(now) if farm_window else None
    return opened if opened is not None and now - opened <= _LONGEST_NIGHT else now - _DAY


@question
def _rendered(tx: Transaction, since: datetime) -> Rendered:
    done = select(func.count()).where(Result.attempt > 0, Result.finished_at >= since)
    return Rendered(tx.execute(done).scalar_one(), rendered_per_second(tx))


@question
def _failed(tx: Transaction, since: datetime) -> Failed:
    """By when their packs ended: a job has no time of its own."""
    tonight = or_(Pack.ended_at >= since, Pack.ended_at.is_(None))
    failed = select(Job.error, func.count().label("num")).join(Pack, Pack.id == Job.pack_id)
    grouped = failed.where(Job.state == JobState.FAILED, tonight).group_by(Job.error).subquery()
    num_jobs = tx.execute(select(func.coalesce(func.sum(grouped.c.num), 0))).scalar_one()
    rows = tx.execute(select(grouped).order_by(grouped.c.num.desc(), grouped.c.error).limit(_SHOWN_REASONS))
    return Failed(int(num_jobs), tuple((row.error or "", row.num) for row in rows))


@question
def _batches(tx: Transaction) -> tuple[list[BatchSummary], int]:
    """At most twenty, and how many more there are."""
    has_ended = Batch.num_pending + Batch.num_queued + Batch.num_running == 0
    rows = tx.execute(select(*SUMMARY).order_by(has_ended, Batch.id.desc()).limit(_SHOWN_BATCHES))
    batches = [BatchSummary.of(row) for row in rows]
    num_batches = tx.execute(select(func.count()).select_from(Batch)).scalar_one()
    return sorted(batches, key=lambda batch: -batch.id), num_batches - len(batches)


@question
def _workers(tx: Transaction, since: datetime, lease_seconds: float) -> tuple[SeatedWorker, ...]:
    return tuple(
        SeatedWorker(row.host, row.device, row.pair, standing, row.seen_at, row.error)
        for row, standing in seated_workers(tx, since, lease_seconds)
    )


def standings(workers: Sequence[SeatedWorker]) -> dict[Standing, int]:
    """How many there are of each."""
    return {name: sum(worker.standing == name for worker in workers) for name in get_args(Standing)}
