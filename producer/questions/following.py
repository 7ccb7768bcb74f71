"""Following batches: their counters, their workers and what failed of them, again and again, until they have ended.

What one look costs does not grow with the batches: counters, workers, and the packs of the last minute.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Row, Select, select, union_all

from farm.database import Database, Transaction, question
from farm.leases import ledger_time
from farm.workers import live_workers
from producer.questions.outlook import GOES_ON, Outlook, outlook_at, waits
from producer.questions.queries import BatchSummary, summaries_of
from producer.questions.rate import batch_rates
from schemas.errors import UnavailableError
from schemas.settings import Settings
from schemas.states import JobState, PackState
from schemas.tables import Job, Pack

_POLL_SECONDS: Final = 0.5
_RATE_SECONDS: Final = 60.0
#: so long the second pack may take; what is longer is no gap between packs
_FIRST_SECONDS: Final = 600.0
#: images that come so many times as late as those before them have stopped coming
_LATE: Final = 3.0
#: so many are remembered, that one of them is between two packs whose images come one by one
_GAPS: Final = 32
#: a transaction that failed a job may have begun so long before it was committed
_COMMITTED_WITHIN: Final = timedelta(seconds=60)
_MOST_FAILURES: Final = 1000


class Rate:
    """Images a second over the last minute, and since the last image before it: packs may take longer.

    The clock starts when the first images are there: loading and the first pack's own time are not counted, nor its
    images. It starts anew after a standstill: hours in which the batch waited would be counted as slow ones.
    ``before``: what it was before anybody looked; it stands for the first minute, until something is seen, and so does
    what was measured before the batch waited.
    """

    def __init__(self, before: float | None = None) -> None:
        self._before = before
        self._before_from: float | None = None
        self._num_tried: int | None = None
        self._now = 0.0
        self._came: deque[tuple[float, int]] = deque()
        self._came_at: float | None = None
        self._gaps: deque[float] = deque([0.0], maxlen=_GAPS)
        self._rests = False

    def note(self, at_seconds: float, num_tried: int, *, waits: bool = False) -> None:
        """``waits``: nothing of the batch may begin now."""
        last, self._num_tried, self._now = self._num_tried, num_tried, at_seconds
        came = last is not None and num_tried > last
        self._rests = waits and not came
        if came:
            self._note_images(num_tried)
        elif waits:
            self._before, self._before_from = self.expected, at_seconds
            self._came_at = None
            self._came.clear()
        elif num_tried < (last or 0) or self._stands_still():  # the first: failed jobs are tried again
            self._came.clear()
        if self._before_from is None:
            self._before_from = at_seconds
        if at_seconds - self._before_from > _RATE_SECONDS:
            self._before = None

    @property
    def per_second(self) -> float | None:
        """None before two moments are known, and while the batch waits."""
        return None if self._rests else self.expected

    @property
    def expected(self) -> float | None:
        """The same, and while the batch waits what it was before: it goes on so, if nothing has changed."""
        if len(self._came) < 2:
            return self._before
        (began, first), (ended, last) = self._came[0], self._came[-1]
        return (last - first) / (max(ended, self._now - max(self._gaps)) - began)

    def _note_images(self, num_tried: int) -> None:
        if self._came_at is not None and (gap := self._now - self._came_at) < _FIRST_SECONDS:
            self._gaps.append(gap)
        self._came_at = self._now
        self._came.append((self._now, num_tried))
        while len(self._came) > 2 and self._now - self._came[1][0] > _RATE_SECONDS:
            self._came.popleft()

    def _stands_still(self) -> bool:
        patience = max(_RATE_SECONDS, _LATE * max(self._gaps)) if len(self._came) > 1 else _FIRST_SECONDS
        return bool(self._came) and self._now - self._came[-1][0] > patience


@dataclass(frozen=True)
class Sight:
    """A batch at one moment, and the live workers of its pair. ``tended``: whoever looks starts workers itself.
    ``seconds_left``: until it has ended, closed hours and all; None where that is not known."""

    batch: BatchSummary
    num_workers: int
    tended: bool = False
    outlook: Outlook = GOES_ON
    images_per_second: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class FailedJob:
    """A job that has just failed."""

    batch_id: int
    number: int
    reason: str


@dataclass(frozen=True)
class Moment:
    """All batches that are followed, and which of their jobs failed since the moment before. Of the first moment
    ``failures`` is empty: what failed before is counted in the batches."""

    sights: tuple[Sight, ...]
    failures: tuple[FailedJob, ...] = ()


def follow(
    database: Database, batch_ids: Sequence[int], settings: Settings, tend: Callable[[], None] | None = None
) -> Iterator[Moment]:
    """The batches twice a second, until all have ended. ``tend`` is called each time; what it raises ends it all.

    While the ledger does not answer, nothing is yielded; that is said on stderr, once.

    Raises:
        NotFoundError: there is no such batch, or it was discarded.
    """
    answers = True
    looks: _Looks | None = None
    while True:
        try:
            looks = looks or _Looks(database, batch_ids, settings, tended=tend is not None)
            moment = looks.look()
        except UnavailableError as error:
            if answers:
                print(f"{error}; trying again", file=sys.stderr, flush=True)
            answers = False
        else:
            answers = True
            yield moment
            if all(sight.batch.ended for sight in moment.sights):
                return
            if tend is not None:
                tend()
        time.sleep(_POLL_SECONDS)


class _Looks:
    def __init__(self, database: Database, batch_ids: Sequence[int], settings: Settings, *, tended: bool) -> None:
        self._database = database
        self._batch_ids = batch_ids
        self._settings = settings
        self._tended = tended
        rates = batch_rates(database)
        self._rates = {batch_id: Rate(rates.get(batch_id)) for batch_id in batch_ids}
        self._failures = _Failures(database)

    def look(self) -> Moment:
        """Raises UnavailableError, NotFoundError."""
        now = ledger_time(self._database)
        batches = summaries_of(self._database, self._batch_ids)
        workers = live_workers(self._database, self._settings.lease_seconds)
        failures = self._failures.since_last(now, batches)
        return Moment(tuple(self._sight(batch, workers.get(batch.pair, 0), now) for batch in batches), failures)

    def _sight(self, batch: BatchSummary, num_workers: int, now: datetime) -> Sight:
        rate, farm_window = self._rates[batch.id], self._settings.window
        num_tried = batch.num_done + batch.num_failed  # canceled ones are no images
        rate.note(time.monotonic(), num_tried, waits=waits(now, batch, farm_window) is not None)
        ahead = outlook_at(now, batch, farm_window, rate.expected)
        seconds_left = (ahead.ends - now).total_seconds() if ahead.ends else None
        return Sight(batch, num_workers, self._tended, ahead, rate.per_second, seconds_left)


class _Failures:
    """Which jobs failed since the last look. Only the last minute's are remembered."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counted: dict[int, int] = {}
        self._seen: set[tuple[int, str]] = set()
        self._looked_at: datetime | None = None

    def since_last(self, now: datetime, batches: Sequence[BatchSummary]) -> tuple[FailedJob, ...]:
        is_first, looked_at = self._looked_at is None, self._looked_at or now
        counted = {batch.id: batch.num_failed for batch in batches}
        new = list[FailedJob]()
        if any(num_failed != self._counted.get(batch_id, 0) for batch_id, num_failed in counted.items()):
            rows = _failed_lately(self._database, batches, looked_at - _COMMITTED_WITHIN)
            new = [FailedJob(row.batch_id, row.number, row.error or "") for row in rows if _key(row) not in self._seen]
            self._seen = {_key(row) for row in rows}
        self._counted, self._looked_at = counted, now
        return () if is_first else tuple(new)


def _key(row: Any) -> tuple[int, str]:
    """One failure: a job that is tried again and fails again does so in another pack."""
    return row.id, row.pack_id


@question
def _failed_lately(tx: Transaction, batches: Sequence[BatchSummary], since: datetime) -> Sequence[Row[Any]]:
    batch_ids = {batch.id for batch in batches}
    rows = tx.execute(failed_lately_statement({batch.pair for batch in batches}, since))
    return [row for row in rows if row.batch_id in batch_ids]


def failed_lately_statement(pairs: Collection[str], since: datetime) -> Select[*tuple[Any, ...]]:
    """The pairs' failed jobs, by way of the packs that run or ended since: however many have failed in all. Of which
    batch they are is asked afterwards, or a database might go through all that failed of it."""
    of_pairs = Pack.pair.in_(pairs)
    running = select(Pack.id).where(of_pairs, Pack.state == PackState.RUNNING)
    ended = select(Pack.id).where(of_pairs, Pack.ended_at > since)
    # A list, and no join: without statistics SQLite would begin a join with all jobs.
    lately = Job.pack_id.in_(union_all(running, ended))
    failed = select(Job.id, Job.batch_id, Job.number, Job.error, Job.pack_id).where(lately)
    # A parameter: else SQLite would go through the index of all that failed.
    return failed.where(Job.state == JobState.FAILED.value).order_by(Job.id).limit(_MOST_FAILURES)
