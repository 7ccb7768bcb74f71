"""How many images a second are done lately. Nothing here changes a row."""

from datetime import timedelta
from typing import Final

from sqlalchemy import Subquery, func, select

from farm.database import Transaction, question
from schemas.tables import Job, Result

_SECONDS: Final = 600.0
#: ten minutes of sixty devices, twenty seconds of a thousand
_RESULTS: Final = 5_000


def recent_results(tx: Transaction) -> Subquery:
    """The results of the last ten minutes, whatever their batch; of a large farm the last thousands of them, so that a
    rate costs the same however many devices there are."""
    lately = select(Result.job_id, Result.attempt, Result.finished_at).where(
        Result.finished_at > tx.now - timedelta(seconds=_SECONDS)
    )
    return lately.order_by(Result.finished_at.desc()).limit(_RESULTS).subquery()


@question
def images_per_second(tx: Transaction, batch_id: int) -> float | None:
    """Of this batch lately (``recent_results``); None where nothing of it was done then."""
    lately = recent_results(tx)
    done = select(func.count().label("num"), func.min(lately.c.finished_at).label("first"))
    row = tx.execute(done.join_from(lately, Job, Job.id == lately.c.job_id).where(Job.batch_id + 0 == batch_id)).one()
    seconds = (tx.now - row.first).total_seconds() if row.num else 0.0
    return row.num / seconds if seconds > 0 else None
