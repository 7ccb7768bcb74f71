"""How many images a batch gave in each stretch of time: by its jobs' results, of a large one by one job in so many.

Nothing here changes a row. A batch is asked for whenever somebody opens its page, so no more rows are read of a million
jobs than of some thousands.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import CTE, BigInteger, cast, extract, func, literal, select

from farm.database import Transaction, question
from producer.reports.report_figures import Throughput, stretch_seconds
from schemas.states import JobState
from schemas.tables import Batch, Job, Result

#: each costs a look into two indexes, and the rows behind them
_LOOKED_AT: Final = 4_000


@dataclass(frozen=True)
class _Look:
    """At every ``one_in``-th job. ``seconds``: second since 1970 → images among them; ``reach``: the last one's
    number."""

    one_in: int
    seconds: dict[int, int]
    reach: int


@question
def throughput(tx: Transaction, batch_id: int) -> Throughput | None:
    """From its first rendered image to its last; None where there is none. Images that were linked to do not count."""
    in_all = sum((getattr(Batch, f"num_{state}") for state in JobState), start=literal(0))
    num_jobs = tx.execute(select(in_all).where(Batch.id == batch_id)).scalar_one_or_none() or 0
    look = _look(tx, batch_id, num_jobs)
    begun = min(num_jobs, look.reach + look.one_in)
    if _one_in(begun) < look.one_in:  # most of it is still to come: what is there is looked at more closely
        look = _look(tx, batch_id, begun)
    return _throughput(look) if look.seconds else None


def _one_in(num_jobs: int) -> int:
    return max(1, -(-num_jobs // _LOOKED_AT))


def _look(tx: Transaction, batch_id: int, last: int) -> _Look:
    """At the jobs from the first to the number ``last``."""
    one_in = _one_in(last)
    numbers = _every(one_in, last)
    second = cast(func.floor(extract("epoch", Result.finished_at)), BigInteger).label("second")
    ours = (Job.batch_id == batch_id, Job.number == numbers.c.number)
    seen = select(second, func.count().label("num"), func.max(Job.number).label("reach"))
    seen = seen.join_from(numbers, Job, ours[0] & ours[1]).join(Result, Result.job_id == Job.id)
    rows = tx.execute(seen.where(Result.attempt > 0).group_by("second")).all()
    return _Look(one_in, {row.second: row.num for row in rows}, max((row.reach for row in rows), default=0))


def _every(step: int, last: int) -> CTE:
    """The multiples of ``step`` up to ``last``: a database looks each up, and passes over what lies between."""
    first = select(literal(step, BigInteger).label("number")).where(literal(step) <= last)
    numbers = first.cte("numbers", recursive=True)
    following = numbers.c.number + step
    return numbers.union_all(select(following).where(following <= last))


def _throughput(look: _Look) -> Throughput:
    first, last = min(look.seconds), max(look.seconds)
    width = stretch_seconds(_time(first), _time(last))
    begins = first // width
    nums = [0] * (last // width - begins + 1)
    for second, num in look.seconds.items():
        nums[second // width - begins] += num * look.one_in
    return Throughput(_time(begins * width), width, tuple(nums), look.one_in)


def _time(second: int) -> datetime:
    return datetime.fromtimestamp(second, UTC)
