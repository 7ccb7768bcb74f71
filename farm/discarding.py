"""The removal of batches that were never opened: marked at once, then a piece of their jobs at a time.

A million rows in one transaction would keep everybody else from SQLite for half a minute. A batch that is canceled and
was never opened is one that is being removed; nothing else leads there. Tables: batches, jobs, results, submissions,
webhook_deliveries.
"""

from collections import Counter
from typing import Final

from sqlalchemy import and_, delete, select, update

from farm.database import Transaction, transaction
from farm.moves import count
from schemas.states import BatchState, JobState
from schemas.tables import Batch, Job, Result, WebhookDelivery
from schemas.web_tables import SubmissionRow

#: removed in one transaction: some hundredths of a second
PIECE: Final = 2_000
#: of a batch
IS_DISCARDED: Final = and_(Batch.state == BatchState.CANCELED, Batch.opened_at.is_(None))


@transaction
def mark_discarded(tx: Transaction, batch_id: int) -> bool:
    """staging → canceled: it cannot be opened any more, no row comes to it, and its request may be made again. Returns
    whether the batch is one that is being removed, since now or before."""
    staging = (Batch.id == batch_id, Batch.state == BatchState.STAGING)
    if tx.execute(update(Batch).where(*staging).values(state=BatchState.CANCELED, opened_at=None)).rowcount:
        tx.execute(delete(SubmissionRow).where(SubmissionRow.batch_id == batch_id))
        return True
    return tx.execute(select(Batch.id).where(Batch.id == batch_id, IS_DISCARDED)).first() is not None


@transaction
def remove_piece(tx: Transaction, batch_id: int) -> bool:
    """Some jobs of a batch that is being removed, with their links; with the last of them the batch. Returns whether
    there may be more."""
    # Whoever links its jobs has locked the batch, and is waited for.
    discarded = select(Batch.id).where(Batch.id == batch_id, IS_DISCARDED)
    if tx.execute(discarded.with_for_update()).first() is None:
        return False
    of_batch = Job.batch_id == batch_id
    numbers = select(Job.number).where(of_batch).order_by(Job.number)
    last = tx.execute(numbers.offset(PIECE - 1).limit(1)).scalar_one_or_none()
    piece = (of_batch,) if last is None else (of_batch, Job.number <= last)
    linked = tx.execute(select(Job.id, Job.state).where(*piece, Job.state != JobState.PENDING)).all()
    tx.execute(delete(Result).where(Result.job_id.in_([job.id for job in linked])))
    num_removed = tx.execute(delete(Job).where(*piece)).rowcount
    if last is not None:
        fewer = Counter(job.state for job in linked) | Counter({JobState.PENDING: num_removed - len(linked)})
        count(tx, batch_id, {JobState(state): -num for state, num in fewer.items()})
        return True
    tx.execute(delete(WebhookDelivery).where(WebhookDelivery.batch_id == batch_id))
    tx.execute(delete(Batch).where(Batch.id == batch_id))
    return False
