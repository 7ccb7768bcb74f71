"""What a user does to a batch that is there: cancel, pause, resume, retry, put in another order.

Each is one or two transactions of ``farm``; commands and the Python API call the same.
"""

import time
from typing import Final

from farm import batches, ledger
from farm.database import Database
from producer.questions.queries import BatchSummary, batch_summary
from schemas.errors import NotFoundError
from schemas.states import BatchState

#: A million rows take most of a minute, and who cancels need not wait for them.
_SWEEP_SECONDS: Final = 0.2


def cancel(database: Database, batch: BatchSummary, *, now: bool = False) -> BatchSummary | None:
    """The batch afterwards; None where it was one that a killed submit left behind, and is discarded. What renders is
    finished, unless ``now``: then it is stopped within a third of a lease. Nothing begins any more; of a large
    batch the dispatcher marks the rest of the jobs. One that has ended stays as it is, and its failed jobs may be tried
    again."""
    if batch.ended:
        return batch
    if batch.state in (BatchState.STAGING, BatchState.CANCELED):
        if batches.discard_batch(database, batch.id, batches.DISCARD_SECONDS):
            return None
        try:
            batch = batch_summary(database, batch.id)  # its submit was alive, and has opened it meanwhile
        except NotFoundError:
            return None
    if batch.state in (BatchState.OPEN, BatchState.PAUSED):
        batches.cancel_batch(database, batch.id)
    if now:
        batches.stop_running(database, batch.id)
    deadline = time.monotonic() + _SWEEP_SECONDS
    while ledger.sweep_canceled(database, batch.id) and time.monotonic() < deadline:
        pass
    return batch_summary(database, batch.id)


def pause(database: Database, batch_id: int) -> BatchSummary:
    """Nothing more of it begins; what renders is finished. One that has ended stays as it is.

    Raises NotFoundError for a batch that is not open.
    """
    batch = batch_summary(database, batch_id)
    if batch.ended and batch.state in (BatchState.OPEN, BatchState.PAUSED):
        return batch
    batches.pause_batch(database, batch_id)
    ledger.return_queued(database)
    return batch_summary(database, batch_id)


def resume(database: Database, batch_id: int) -> BatchSummary:
    """Goes on with a paused batch. Raises NotFoundError for one that is not paused."""
    batches.resume_batch(database, batch_id)
    return batch_summary(database, batch_id)


def reprioritise(database: Database, batch: BatchSummary, priority: int | None, weight: float | None) -> BatchSummary:
    """Puts it before or behind others; what is None stays. It holds for every pack that is claimed from now on.

    Raises NotFoundError for a batch that is neither open nor paused.
    """
    batches.reprioritise(database, batch.id, priority, weight)
    ledger.return_queued(database, batch.pair)
    return batch_summary(database, batch.id)
