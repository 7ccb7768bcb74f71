"""How many images a batch gave in each stretch of time, by the packs that gave some: far fewer rows than its jobs.

Nothing here changes a row.
"""

from datetime import UTC, datetime

from sqlalchemy import Integer, cast, exists, extract, func, select

from farm.database import Transaction, question
from producer.reports.report_figures import Throughput, stretch_seconds
from schemas.states import PackState
from schemas.tables import Pack, Result


@question
def throughput(tx: Transaction, batch_id: int) -> Throughput | None:
    """From its first pack that ended with images to its last; None where none did."""
    has_images = exists().where(Result.pack_id == Pack.id)
    ended = (Pack.batch_id == batch_id, Pack.state == PackState.FINISHED, has_images)
    span = select(func.min(Pack.ended_at).label("first"), func.max(Pack.ended_at).label("last")).where(*ended)
    times = tx.execute(span).one()
    if times.first is None:
        return None
    seconds = stretch_seconds(times.first, times.last)
    stretch = cast(extract("epoch", Pack.ended_at) // seconds, Integer).label("stretch")
    counted = select(stretch, func.sum(Pack.num_jobs).label("num")).where(*ended).group_by("stretch")
    nums = {row.stretch: int(row.num) for row in tx.execute(counted)}
    first, last = min(nums), max(nums)
    begins = datetime.fromtimestamp(first * seconds, UTC)
    return Throughput(begins, seconds, tuple(nums.get(n, 0) for n in range(first, last + 1)))
