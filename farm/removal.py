"""The removal of a batch that has ended: its jobs, results and packs, and the images that no other job has.

Tables: batches, jobs, packs, results, images, webhook_deliveries. A chunk of jobs at a time, each with its counters, so
that who dies in between leaves a smaller batch and not a broken one. The files are for whoever called.
"""

from collections import Counter
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Row, delete, exists, func, literal_column, or_, select, update

from farm.database import Transaction, question, transaction
from farm.discarding import IS_DISCARDED
from schemas.errors import InputError, NotFoundError
from schemas.states import BatchState, JobState
from schemas.tables import Batch, Image, Job, Pack, Result, WebhookDelivery


@transaction
def remove_jobs(tx: Transaction, batch_id: int, limit: int) -> tuple[int, list[str]]:
    """So many jobs of the batch, with their results, and the images that no job has any more. Returns how many jobs,
    and the URIs of those images.

    Raises:
        NotFoundError: there is no such batch.
        InputError: it has not ended, or a batch is being submitted, whose jobs may be linked to its images.
    """
    _check_may_go(tx, batch_id)  # of a batch that goes on nothing is locked
    of_batch = select(Job.id, Job.state).where(Job.batch_id == batch_id)
    jobs = tx.execute(of_batch.order_by(Job.id).limit(limit).with_for_update()).all()
    _check_may_go(tx, batch_id)  # by now nobody can set any of these going again
    job_ids = [job.id for job in jobs]
    image_ids = tx.execute(select(Result.image_id).where(Result.job_id.in_(job_ids))).scalars().all()
    tx.execute(select(Image.id).where(Image.id.in_(image_ids)).order_by(Image.id).with_for_update()).all()
    tx.execute(delete(Result).where(Result.job_id.in_(job_ids)))
    tx.execute(delete(Job).where(Job.id.in_(job_ids)))
    _count_down(tx, batch_id, jobs)
    unused = (Image.id.in_(image_ids), ~exists().where(Result.image_id == Image.id))
    return len(job_ids), list(tx.execute(delete(Image).where(*unused).returning(Image.uri)).scalars())


@transaction
def remove_batch(tx: Transaction, batch_id: int) -> bool:
    """The row of a batch without jobs, and its packs. A pack that made an image of another batch's job stays, and the
    batch with it. Returns whether the batch is gone. Raises as ``remove_jobs``."""
    tx.execute(select(Batch.id).where(Batch.id == batch_id).with_for_update()).first()
    _check_may_go(tx, batch_id)
    if tx.execute(select(Job.id).where(Job.batch_id == batch_id).limit(1)).first() is not None:
        return False
    linked: ColumnElement[int] = literal_column("0")  # as it is: a parameter could not use the index of those alone
    named = exists().where(Result.pack_id == Pack.id, Result.attempt == linked)
    tx.execute(delete(Pack).where(Pack.batch_id == batch_id, ~named))
    if tx.execute(select(Pack.id).where(Pack.batch_id == batch_id).limit(1)).first() is not None:
        return False  # and what the webhook was told of it is remembered, or it would be told again
    tx.execute(delete(WebhookDelivery).where(WebhookDelivery.batch_id == batch_id))
    tx.execute(delete(Batch).where(Batch.id == batch_id))
    return True


@question
def images_of_batch_alone(tx: Transaction, batch_id: int) -> tuple[int, int]:
    """How many images only jobs of this batch have, and how many bytes their files are. Raises as ``remove_jobs``."""
    _check_may_go(tx, batch_id)
    ours = exists().where(Result.image_id == Image.id, Result.job_id == Job.id, Job.batch_id == batch_id)
    others = exists().where(Result.image_id == Image.id, Result.job_id == Job.id, Job.batch_id != batch_id)
    row = tx.execute(select(func.count().label("num"), func.sum(Image.size_bytes).label("size")).where(ours, ~others))
    counted = row.one()
    return counted.num, int(counted.size or 0)


def _check_may_go(tx: Transaction, batch_id: int) -> None:
    left = Batch.num_pending + Batch.num_queued + Batch.num_running
    row = tx.execute(select(Batch.state, left.label("left")).where(Batch.id == batch_id)).one_or_none()
    if row is None:
        raise NotFoundError(f"no batch {batch_id}; `nightshift status` lists them")
    if row.left or row.state == BatchState.STAGING:
        raise InputError(f"batch {batch_id} has not ended; `nightshift cancel {batch_id}` ends it")
    submitted = or_(Batch.state == BatchState.STAGING, IS_DISCARDED)
    if tx.execute(select(Batch.id).where(submitted).limit(1)).first() is not None:
        raise InputError("a batch is being submitted, whose jobs may be linked to these images; try again after")


def _count_down(tx: Transaction, batch_id: int, jobs: Sequence[Row[tuple[int, str]]]) -> None:
    counted = Counter(JobState(job.state) for job in jobs)
    fewer = {f"num_{state}": getattr(Batch, f"num_{state}") - num for state, num in counted.items()}
    if fewer:
        tx.execute(update(Batch).where(Batch.id == batch_id).values(fewer))
