"""The images of a batch as they finish: each once, in the order in which the ledger recorded them, none missed.

A transaction may become visible later than one with a younger ``finished_at``: it waited for a lock, or the clock was
put back. So the cursor looks back a little each time, and the batch's counter, which moves in the transaction that
records an image, tells when something lies behind even that: then all of the batch is looked through once. The counter
is read before the images, so whatever it counts can be seen; while it stands still, nothing else is read. Memory holds
a bit for each job of the batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import or_, select

from farm.database import Transaction, question
from producer.questions.job_results import JobResult, results_of
from producer.questions.patience import Patient, until_ended
from schemas.states import JobState
from schemas.tables import Job, Result

#: A transaction that took longer than this behind the others is found by the counter, and costs a look at all.
_LOOK_BACK: Final = timedelta(seconds=10)
_PAGE: Final = 500
#: of the look at all of a batch: numbers alone
_LONG_PAGE: Final = 10_000


@dataclass(frozen=True)
class _Place:
    """In the order of results: those of one transaction have one time."""

    finished_at: datetime
    job_id: int


def finished_jobs(ledger: Patient, batch_id: int) -> Iterator[JobResult]:
    """The done jobs of the batch until it has ended, those that are done already first."""
    finished = _FinishedJobs(ledger, batch_id)
    for batch in until_ended(ledger, batch_id):
        yield from finished.up_to(batch.num_done, batch.created_at)


class _FinishedJobs:
    """What has been given already."""

    def __init__(self, ledger: Patient, batch_id: int) -> None:
        self._ledger = ledger
        self._batch_id = batch_id
        self._num_given = 0
        self._given = bytearray()  # a bit for each number
        self._num_nowhere = 0  # counted as done, and found by no look at all: that ledger is broken
        #: the youngest time that was seen, of jobs of any batch
        self._last: datetime | None = None
        #: when the jobs of any batch ended that were seen and lie within the last ``_LOOK_BACK``; some older ones too
        self._recent: dict[int, datetime] = {}
        self._tidy_above = _PAGE

    def up_to(self, num_done: int, created_at: datetime) -> Iterator[JobResult]:
        """What is new. ``num_done``: so many are done; while all of them were given, nothing is read."""
        if self._num_left(num_done) > 0:
            yield from self._since_last(num_done, created_at)
        if self._num_left(num_done) > 0:
            yield from self._overlooked()
            self._num_nowhere += self._num_left(num_done)

    def _num_left(self, num_done: int) -> int:
        return num_done - self._num_given - self._num_nowhere

    def _since_last(self, num_done: int, created_at: datetime) -> Iterator[JobResult]:
        """What was recorded since the last call, or a little before it; at first since the batch was created."""
        place = _Place((self._last or created_at) - _LOOK_BACK, 0)
        while self._num_left(num_done) > 0 and (page := self._ledger.ask(_recorded, place, _PAGE)):
            place = page[-1]
            yield from self._new([at.job_id for at in page if at.job_id not in self._recent])
            self._remember(page)

    def _overlooked(self) -> Iterator[JobResult]:
        """What is done and was not given, by a look at all of the batch."""
        after = 0
        while page := self._ledger.ask(_done, self._batch_id, after, _LONG_PAGE):
            after = page[-1][0]
            missing = [job_id for number, job_id in page if not self._is_given(number)]
            for start in range(0, len(missing), _PAGE):
                yield from self._new(missing[start : start + _PAGE])

    def _new(self, job_ids: Sequence[int]) -> Iterator[JobResult]:
        found = self._ledger.ask(results_of, job_ids, self._batch_id) if job_ids else {}
        for job_id in job_ids:
            result = found.get(job_id)
            if result is not None and not self._is_given(result.number):
                self._give(result.number)
                yield result

    def _remember(self, page: Sequence[_Place]) -> None:
        self._last = max(page[-1].finished_at, self._last or page[-1].finished_at)
        self._recent |= {at.job_id: at.finished_at for at in page}
        if len(self._recent) > self._tidy_above:
            since = self._last - _LOOK_BACK
            self._recent = {job_id: at for job_id, at in self._recent.items() if at >= since}
            self._tidy_above = 2 * len(self._recent) + _PAGE

    def _is_given(self, number: int) -> bool:
        place, bit = divmod(number, 8)
        return place < len(self._given) and bool(self._given[place] >> bit & 1)

    def _give(self, number: int) -> None:
        place, bit = divmod(number, 8)
        self._given.extend(bytes(max(0, place + 1 - len(self._given))))
        self._given[place] |= 1 << bit
        self._num_given += 1


@question
def _recorded(tx: Transaction, after: _Place, limit: int) -> list[_Place]:
    """Results of any batch behind the place, in order: the index of times alone is read."""
    later = or_(Result.finished_at > after.finished_at, Result.job_id > after.job_id)
    rows = select(Result.finished_at, Result.job_id).where(Result.finished_at >= after.finished_at, later)
    in_order = rows.order_by(Result.finished_at, Result.job_id).limit(limit)
    return [_Place(row.finished_at, row.job_id) for row in tx.execute(in_order)]


@question
def _done(tx: Transaction, batch_id: int, after: int, limit: int) -> list[tuple[int, int]]:
    """Number and id of done jobs behind the number, in order."""
    done = (Job.batch_id == batch_id, Job.number > after, Job.state == JobState.DONE)
    rows = tx.execute(select(Job.number, Job.id).where(*done).order_by(Job.number).limit(limit))
    return [(row.number, row.id) for row in rows]
