"""Twins: open batches of one pair that have images in common. They go one after another, so that each image is rendered
once: what the first has rendered, the others' jobs are linked to. Tables: batches, jobs.

When it is opened, a batch is compared with the open ones by two hundred of its rows. One that has yet to render a
twentieth of these is its twin; of fewer, what is rendered twice is less than what would wait.
"""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import func, select, text, update

from farm.database import Transaction, statement
from schemas.states import BatchState, JobState
from schemas.tables import Batch, Job

_ROWS: Final = 200
#: of the rows that are compared
_SHARED: Final = 1 / 20
#: the youngest open ones, so that opening a batch takes no longer however many wait
_BATCHES: Final = 50
_LEFT: Final = Batch.num_pending + Batch.num_queued + Batch.num_running


def join_twins(tx: Transaction, batch_id: int, linked_to: int) -> None:
    """In the transaction that opens the batch: it and the batches that share images with it become one group.
    ``linked_to``: the last image that its jobs have been compared with."""
    tx.execute(update(Batch).where(Batch.id == batch_id).values(linked_to=linked_to))
    if tx.dialect == "postgresql":  # of two that are opened at once, the second sees the first
        tx.execute(text("SELECT pg_advisory_xact_lock(7155404)"))
    twins = _sharing(tx, _compared(tx, batch_id), _pending_digests(tx, batch_id))
    if not twins:
        return
    # Locked in order: whoever writes the counters of several takes them in this one.
    rows = tx.execute(select(Batch.id, Batch.twin_group).where(Batch.id.in_(twins)).order_by(Batch.id)
                      .with_for_update()).all()  # fmt: skip
    groups = {row.twin_group for row in rows} - {None}
    joined = Batch.id.in_([*twins, batch_id]) | Batch.twin_group.in_(groups)
    tx.execute(update(Batch).where(joined).values(twin_group=min(groups or twins)))


@statement
def note_linked(tx: Transaction, batch_id: int, image_id: int) -> None:
    """The batch's jobs have been compared with all images up to this one."""
    tx.execute(update(Batch).where(Batch.id == batch_id).values(linked_to=image_id))


def _compared(tx: Transaction, batch_id: int) -> Collection[int]:
    pair = select(Batch.pair).where(Batch.id == batch_id).scalar_subquery()
    goes_on = (Batch.state.in_((BatchState.OPEN, BatchState.PAUSED)), _LEFT > 0, Batch.linked_to.is_not(None))
    others = select(Batch.id).where(Batch.pair == pair, Batch.id != batch_id, *goes_on)
    return tx.execute(others.order_by(Batch.id.desc()).limit(_BATCHES)).scalars().all()


def _pending_digests(tx: Transaction, batch_id: int) -> set[str]:
    """Of at most two hundred jobs that have no image yet, evenly spread from the first of them to the last."""
    numbers = select(Job.number).where(Job.batch_id == batch_id, Job.state == JobState.PENDING)
    first = tx.execute(numbers.order_by(Job.isolated, Job.id).limit(1)).scalar_one_or_none()
    last = tx.execute(numbers.order_by(Job.isolated.desc(), Job.id.desc()).limit(1)).scalar_one_or_none()
    if first is None or last is None:
        return set()
    stretch = range(first, last + 1)
    spread = {stretch[n * len(stretch) // _ROWS] for n in range(_ROWS)}
    rows = tx.execute(select(Job.spec_digest, Job.state).where(Job.batch_id == batch_id, Job.number.in_(spread)))
    return {row.spec_digest for row in rows if row.state == JobState.PENDING}


def _sharing(tx: Transaction, batch_ids: Collection[int], digests: Collection[str]) -> list[int]:
    """Those that have yet to render enough of these."""
    if not batch_ids or not digests:
        return []
    unfinished = Job.state.in_((JobState.PENDING, JobState.QUEUED))
    shared: Any = func.count(Job.spec_digest.distinct())
    there = (Job.batch_id.in_(batch_ids), Job.spec_digest.in_(digests), unfinished)
    found = select(Job.batch_id).where(*there).group_by(Job.batch_id).having(shared >= _SHARED * len(digests))
    return sorted(tx.execute(found).scalars())
