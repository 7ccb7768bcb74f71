"""The jobs of a batch a page at a time, by state. Nothing here changes a row.

A page costs the same in a batch of ten million. Failed jobs have an index of their own, those in a worker's hands are
found by their packs; all others are looked for in the order of the batch, so many rows at a time and no more, and then
a page may be short and not the last.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, func, select

from farm.database import Transaction, question
from farm.job_states import is_in
from producer.questions.job_results import JobResult, job_result, jobs_with_images
from schemas.errors import NotFoundError
from schemas.states import JobState, PackState
from schemas.tables import Job, Pack

#: rows that are looked through for one page, where no index knows the state
_LOOKED_THROUGH: Final = 50_000
#: more than any id
_BEYOND: Final = 2**63 - 1
_IN_HAND: Final = frozenset({JobState.QUEUED, JobState.RUNNING})


@dataclass(frozen=True)
class JobPage:
    """``after``: the number behind which the next page begins; None where there is none."""

    jobs: list[JobResult]
    after: int | None


@question
def jobs_after(tx: Transaction, batch_id: int, after: int, states: Collection[JobState], limit: int) -> JobPage:
    """Those behind this number, in one of these states; where none is named, in any."""
    ours = jobs_with_images().where(Job.batch_id == batch_id)
    if not states:
        return _page(tx, ours.where(Job.number > after).order_by(Job.number), limit)
    wanted = ours.where(is_in(states))
    if set(states) == {JobState.FAILED}:
        return _page(tx, wanted.where(Job.id >= _first_id(tx, batch_id, after)).order_by(Job.id), limit)
    if set(states) <= _IN_HAND:
        live = select(Pack.id).where(Pack.batch_id == batch_id, Pack.state.in_((PackState.QUEUED, PackState.RUNNING)))
        in_hand = jobs_with_images().where(Job.pack_id.in_(live), is_in(states), Job.number > after)
        return _page(tx, in_hand.order_by(Job.id), limit)
    last = tx.execute(select(func.max(Job.number)).where(Job.batch_id == batch_id)).scalar_one() or 0
    end = min(after + _LOOKED_THROUGH, last)
    page = _page(tx, wanted.where(Job.number > after, Job.number <= end).order_by(Job.number), limit)
    return page if page.after is not None or end == last else JobPage(page.jobs, end)


@question
def job_of(tx: Transaction, batch_id: int, number: int) -> JobResult:
    """One job. Raises NotFoundError."""
    row = tx.execute(jobs_with_images().where(Job.batch_id == batch_id, Job.number == number)).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no job {batch_id}/{number}: no such batch, or not so many jobs in it")
    return job_result(row)


def _first_id(tx: Transaction, batch_id: int, after: int) -> int:
    """Of the job behind this number: a batch's jobs have their ids in its order. Beyond all where there is none."""
    behind = select(Job.id).where(Job.batch_id == batch_id, Job.number > after).order_by(Job.number).limit(1)
    found: int | None = tx.execute(behind).scalar_one_or_none()
    return _BEYOND if found is None else found


def _page(tx: Transaction, jobs: Select[*tuple[Any, ...]], limit: int) -> JobPage:
    rows = tx.execute(jobs.limit(limit + 1)).all()
    page = [job_result(row) for row in rows[:limit]]
    return JobPage(page, page[-1].number if len(rows) > limit else None)
