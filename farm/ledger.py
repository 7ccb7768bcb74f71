"""Every move of a job, one function per transaction. Nothing else writes ``jobs.state`` or ``packs.state``: with
``staging``, ``queueing``, ``claims``, ``moves``, ``results`` and ``finishing``, its statements, which serve it alone.

Tables: batches, jobs, packs, images, results. Locks are taken in this order: pack, its jobs, its batch's counters.
A job's row is written when it is released and when it ends or goes back. Between them its pack's row says whether it is
queued or running (``job_states``), so whoever moves one of those has locked the pack.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, func, insert, select, update

from farm import results
from farm.claims import claim
from farm.database import Transaction, bulk_transaction, statement, transaction
from farm.finishing import finish_at_once
from farm.moves import check_move, count, end_if_empty, end_packs, move, write
from farm.odd_shapes import ODD_SHAPE_SECONDS
from farm.packs import has_expired, held, may_not_begin, queued_below
from farm.queueing import next_packs, queue_jobs
from farm.retries import Failure, verdict
from farm.staging import insert_staged
from schemas.errors import LeaseLostError, NotFoundError
from schemas.provenance import Environment
from schemas.records import ClaimedJob, ClaimedPack, FinishedImage, ReleasedPack, StagedJob
from schemas.states import BatchState, JobState, PackState
from schemas.tables import Batch, Image, Job, Pack, Result

SWEEP_CHUNK: Final = 10_000
#: named in one statement: a thousand devices' queue is of thousands
_PACKS_AT_ONCE: Final = 1_000
_NO_ERROR: Final = {"error": None, "error_code": None, "traceback": None, "retry_at": None}


# --- a batch -----------------------------------------------------------------------------------------------------


@bulk_transaction
def stage_jobs(tx: Transaction, batch_id: int, jobs: Sequence[StagedJob]) -> int:
    """Nothing → pending. A job that the batch has already (same spec digest and repeat) is left out. Returns how many
    are new. Raises NotFoundError where the batch is no longer in ``staging``."""
    new = insert_staged(tx, batch_id, JobState.PENDING, jobs)
    count(tx, batch_id, {JobState.PENDING: new})
    staging = (Batch.id == batch_id, Batch.state == BatchState.STAGING)
    if not tx.execute(update(Batch).where(*staging).values(staged_at=tx.now)).rowcount:
        raise NotFoundError(f"batch {batch_id} takes no more rows; it was opened or discarded")
    return new


@transaction
def sweep_canceled(tx: Transaction, batch_id: int) -> int:
    """pending | queued → canceled, a chunk of jobs of a canceled batch. Returns how many; 0 when none is left."""
    queued = select(Pack.id).where(Pack.batch_id == batch_id, Pack.state == PackState.QUEUED)
    pack_ids = tx.execute(queued.order_by(Pack.id).with_for_update()).scalars().all()
    num_queued = 0
    if pack_ids:
        end_packs(tx, PackState.CANCELED, Pack.id.in_(pack_ids))
        num_queued = write(tx, JobState.QUEUED, JobState.CANCELED, Job.pack_id.in_(pack_ids))
    chunk = select(Job.id).where(Job.batch_id == batch_id, Job.state == JobState.PENDING).limit(SWEEP_CHUNK)
    num_pending = write(tx, JobState.PENDING, JobState.CANCELED, Job.id.in_(chunk))
    num_canceled = num_queued + num_pending
    count(tx, batch_id, {JobState.QUEUED: -num_queued, JobState.PENDING: -num_pending, JobState.CANCELED: num_canceled})
    return num_canceled


@transaction
def retry_failed(tx: Transaction, batch_id: int) -> int:
    """failed → pending, with all attempts anew. Returns how many. Raises NotFoundError for a batch that is neither open
    nor paused."""
    state = tx.execute(select(Batch.state).where(Batch.id == batch_id)).scalar_one_or_none()
    if state not in (BatchState.OPEN, BatchState.PAUSED):
        raise NotFoundError(f"batch {batch_id} is neither open nor paused; its failed jobs cannot be tried again")
    failed = Job.batch_id == batch_id
    return move(tx, batch_id, JobState.FAILED, JobState.PENDING, failed, attempts=0, **_NO_ERROR)


@transaction
def link_jobs(tx: Transaction, batch_id: int, images: Mapping[int, int]) -> int:
    """pending → done: jobs whose image exists. ``images``: job → image. Their results say what the first result of the
    image said, with attempt 0 and no time spent. Returns how many."""
    # A batch that is being discarded and an image that is being removed are waited for, and are gone then: nobody links
    # to what vanishes.
    tx.execute(select(Batch.id).where(Batch.id == batch_id).with_for_update(read=True, key_share=True)).all()
    held_images = select(Image.id).where(Image.id.in_(images.values())).order_by(Image.id)
    tx.execute(held_images.with_for_update(read=True, key_share=True)).all()
    first = select(func.min(Result.job_id)).where(Result.image_id.in_(images.values())).group_by(Result.image_id)
    made = {row.image_id: row._mapping for row in tx.execute(select(Result).where(Result.job_id.in_(first)))}
    pending = select(Job.id).where(Job.id.in_(images), Job.batch_id == batch_id, Job.state == JobState.PENDING)
    waiting = tx.execute(pending.order_by(Job.id).with_for_update()).scalars()  # who cancels them waits for us
    job_ids = [job_id for job_id in waiting if images[job_id] in made]
    spent = {"attempt": 0, "render_seconds": 0.0, "finish_seconds": 0.0, "finished_at": tx.now}
    rows = [{**made[images[job_id]], **spent, "job_id": job_id} for job_id in job_ids]
    if rows:
        tx.execute(insert(Result), rows)
    return move(tx, batch_id, JobState.PENDING, JobState.DONE, Job.id.in_(job_ids))


# --- release ------------------------------------------------------------------------------------------------------


@transaction
def release_packs(tx: Transaction, batch_id: int, num_packs: int, pack_size: int,
                  start_before: datetime | None = None) -> list[ReleasedPack]:  # fmt: skip
    """pending → queued: the oldest pending jobs of an open batch, but for those whose next try has to wait, in packs
    whose jobs share a pack key, or its shape (``packing``). Isolated jobs come last, each in a pack of its own.

    ``start_before``: they are neither claimed nor begun any later.
    """
    made = next_packs(tx, batch_id, num_packs, pack_size)
    return queue_jobs(tx, batch_id, made, start_before) if made else []


@transaction
def return_queued(tx: Transaction, pair: str | None = None, below: int | None = None) -> int:
    """queued → pending: packs that may no longer begin, for their window has closed or their batch was paused; or every
    queued pack of a pair, for the order of its batches has changed; of lower priority than ``below``, where a batch of
    that priority is to go before them. Returns how many packs."""
    which = may_not_begin(tx) if pair is None else queued_below(pair, below)
    queued = select(Pack.id, Pack.batch_id).where(Pack.state == PackState.QUEUED, which)
    packs = tx.execute(queued.order_by(Pack.id).with_for_update()).all()
    for batch_id, of_batch in groupby(_by_batch(packs), attrgetter("batch_id")):
        ids = [pack.id for pack in of_batch]
        for lot in (ids[n : n + _PACKS_AT_ONCE] for n in range(0, len(ids), _PACKS_AT_ONCE)):
            end_packs(tx, PackState.RETURNED, Pack.id.in_(lot))
            move(tx, batch_id, JobState.QUEUED, JobState.PENDING, Job.pack_id.in_(lot))
    return len(packs)


# --- a worker's pack ----------------------------------------------------------------------------------------------


@statement
def claim_pack(tx: Transaction, pack_id: str, worker_id: str, lease_seconds: float, pack_key: str = "",
               odd_seconds: float = ODD_SHAPE_SECONDS) -> ClaimedPack | None:  # fmt: skip
    """queued → running. None where there is nothing to claim: claimed, ended, canceled, too late, or never heard of.

    ``pack_key``: of the pack that the worker rendered last ("": nothing yet). Another queued pack of the same batch
    may be claimed in the place of this one, unless one has waited for ``odd_seconds`` (``claims.claim``). A pack whose
    answer was lost goes back when its lease ends, and another may be claimed meanwhile.
    """
    rows = claim(tx, pack_id, worker_id, lease_seconds, pack_key, odd_seconds)
    if not rows:
        return None
    pack = rows[0]
    jobs = tuple(ClaimedJob(row.id, row.spec, row.meta, row.attempts, row.isolated) for row in rows)
    return ClaimedPack(pack.pack_id, pack.batch_id, pack.pair, pack.pack_key, worker_id, jobs)


@statement
def finish_jobs(tx: Transaction, pack: ClaimedPack, environment: Environment, images: Sequence[FinishedImage]) -> None:
    """running → done, with one image row and one result row each: all of them, or none. Raises LeaseLostError when the
    pack is lost, or one of the jobs is no longer in it.

    It may be repeated after a commit whose answer was lost: what that commit recorded is left as it is.
    """
    check_move(JobState.RUNNING, JobState.DONE)
    finish = finish_at_once if tx.dialect == "postgresql" else _finish
    if not finish(tx, pack, environment, images) and not results.are_recorded(tx, pack, images):
        raise LeaseLostError(f"pack {pack.id} is no longer this worker's; what it rendered of it is not recorded")


def _finish(tx: Transaction, pack: ClaimedPack, environment: Environment, images: Sequence[FinishedImage]) -> bool:
    """Step by step, where a statement cannot do it all. False where nothing was done."""
    job_ids = {image.job_id for image in images}
    if job_ids - _left_in(tx, pack):
        return False
    move(tx, pack.batch_id, JobState.RUNNING, JobState.DONE, *_jobs_of(pack, job_ids), **_NO_ERROR)
    results.record(tx, pack, environment, images)
    end_if_empty(tx, pack.id)
    return True


@transaction
def fail_jobs(tx: Transaction, pack: ClaimedPack, job_ids: Sequence[int], failure: Failure, max_attempts: int) -> None:
    """running → pending | failed, as ``farm/retries.py`` decides. Raises LeaseLostError when the pack is lost."""
    _fence(tx, pack)
    _return_jobs(tx, pack.id, pack.batch_id, failure, max_attempts, Job.id.in_(job_ids))
    end_if_empty(tx, pack.id)


@transaction
def give_back_pack(tx: Transaction, pack: ClaimedPack) -> int:
    """running → pending, no attempt counted (canceled, where the batch was canceled). A lost pack is left alone.

    Returns how many jobs.
    """
    if not end_packs(tx, PackState.RETURNED, held(pack.id, pack.worker_id)):
        return 0
    canceled = tx.execute(select(Batch.state).where(Batch.id == pack.batch_id)).scalar_one() == BatchState.CANCELED
    state = JobState.CANCELED if canceled else JobState.PENDING
    return move(tx, pack.batch_id, JobState.RUNNING, state, Job.pack_id == pack.id)


@transaction
def expire_leases(tx: Transaction, max_attempts: int, worker_id: str | None = None, *, blames: bool = True) -> int:
    """running → pending | failed: packs whose lease ran out, or whose worker is known to be dead. Returns how many.

    Without ``blames`` no job is suspected of the death: it was wanted.
    """
    of_worker = and_(Pack.state == PackState.RUNNING, Pack.worker_id == worker_id)
    packs = tx.execute(
        select(Pack.id, Pack.batch_id, Batch.state.label("batch_state"))
        .join(Batch, Batch.id == Pack.batch_id)
        .where(has_expired(tx) if worker_id is None else of_worker)
        .order_by(Pack.id)
        .with_for_update(of=Pack)
    ).all()
    for pack in _by_batch(packs):
        end_packs(tx, PackState.EXPIRED, Pack.id == pack.id)
        if pack.batch_state == BatchState.CANCELED or not blames:
            state = JobState.CANCELED if pack.batch_state == BatchState.CANCELED else JobState.PENDING
            move(tx, pack.batch_id, JobState.RUNNING, state, Job.pack_id == pack.id)
        else:
            failure = Failure.death("its worker died or went silent with it in hand")
            _return_jobs(tx, pack.id, pack.batch_id, failure, max_attempts)
    return len(packs)


# --- the moves themselves -------------------------------------------------------------------------------------------


def _by_batch(packs: Sequence[Row[Any]]) -> list[Row[Any]]:
    """Each batch's counters stay locked until the end: everybody who writes those of several takes them in this order,
    or two might wait for each other."""
    return sorted(packs, key=attrgetter("batch_id"))


def _fence(tx: Transaction, pack: ClaimedPack) -> None:
    if tx.execute(select(Pack.id).where(held(pack.id, pack.worker_id)).with_for_update()).first() is None:
        raise LeaseLostError(f"pack {pack.id} is no longer this worker's; what it rendered of it is not recorded")


def _left_in(tx: Transaction, pack: ClaimedPack) -> set[int]:
    """Its jobs, if it is still in the worker's hands, that have neither ended nor gone back."""
    left = select(Job.id).join(Pack, Pack.id == Job.pack_id).where(held(pack.id, pack.worker_id))
    return set(tx.execute(left.where(Job.state == JobState.QUEUED)).scalars())


def _jobs_of(pack: ClaimedPack, job_ids: Collection[int]) -> tuple[ColumnElement[bool], ...]:
    return (Job.pack_id == pack.id, Job.id.in_(job_ids))


def _return_jobs(tx: Transaction, pack_id: str, batch_id: int, failure: Failure, max_attempts: int,
                 *where: ColumnElement[bool]) -> None:  # fmt: skip
    pack = tx.execute(select(Pack.num_jobs, Pack.rendering_at).where(Pack.id == pack_id)).one()
    rows = tx.execute(
        select(Job.id, Job.attempts, Job.isolated)
        .where(Job.pack_id == pack_id, Job.state == JobState.QUEUED, *where)
        .order_by(Job.id)
    ).all()
    for job in rows:
        had_the_worker = job.isolated and pack.rendering_at is not None
        alone = failure.is_blamed_on(pack.num_jobs, had_the_worker=had_the_worker)
        end = verdict(retryable=failure.retryable, alone=alone, attempts=job.attempts, max_attempts=max_attempts)
        why = {"error": failure.sentence, "error_code": failure.code, "traceback": failure.traceback}
        again = {"attempts": job.attempts + end.counts, "retry_at": tx.now + timedelta(seconds=end.wait_seconds)}
        # What is the job's own fault harms no other, and would be as it is alone.
        isolated = job.isolated or not failure.is_of_the_job
        move(tx, batch_id, JobState.RUNNING, end.state, Job.id == job.id, isolated=isolated, **why, **again)
