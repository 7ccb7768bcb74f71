"""Every move of a job, one function per transaction. Nothing else writes ``jobs.state`` or ``packs.state``.

Tables: batches, jobs, packs, images, results. Locks are taken in this order: pack, its jobs, its batch's counters.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, exists, func, insert, or_, select, update

from farm import results
from farm.database import Transaction, transaction
from farm.packing import PackOfJobs, packs_of
from farm.packs import BATCH_IS_OPEN, held, in_time, suiting
from farm.retries import Failure, verdict
from farm.staging import insert_staged
from schemas.errors import LeaseLostError, NotFoundError
from schemas.provenance import Environment
from schemas.records import ClaimedJob, ClaimedPack, FinishedImage, ReleasedPack, StagedJob
from schemas.states import BatchState, JobState, PackState, may_move
from schemas.tables import Batch, Image, Job, Pack, Result

SWEEP_CHUNK: Final = 10_000
_NO_ERROR: Final = {"error": None, "error_code": None, "traceback": None, "retry_at": None}


# --- a batch -----------------------------------------------------------------------------------------------------


@transaction
def stage_jobs(tx: Transaction, batch_id: int, jobs: Sequence[StagedJob]) -> int:
    """Nothing → pending. A job that the batch has already (same spec digest and repeat) is left out. Returns how many
    are new."""
    new = insert_staged(tx, batch_id, JobState.PENDING, jobs)
    _count(tx, batch_id, {JobState.PENDING: new})
    tx.execute(update(Batch).where(Batch.id == batch_id).values(staged_at=tx.now))
    return new


@transaction
def sweep_canceled(tx: Transaction, batch_id: int) -> int:
    """pending | queued → canceled, a chunk of jobs of a canceled batch. Returns how many; 0 when none is left."""
    queued_packs = (Pack.batch_id == batch_id, Pack.state == PackState.QUEUED)
    tx.execute(select(Pack.id).where(*queued_packs).order_by(Pack.id).with_for_update()).all()
    _end_packs(tx, PackState.CANCELED, *queued_packs)
    chunk = select(Job.id).where(Job.batch_id == batch_id, Job.state == JobState.PENDING).limit(SWEEP_CHUNK)
    queued = _move(tx, batch_id, JobState.QUEUED, JobState.CANCELED)
    return queued + _move(tx, batch_id, JobState.PENDING, JobState.CANCELED, Job.id.in_(chunk))


@transaction
def retry_failed(tx: Transaction, batch_id: int) -> int:
    """failed → pending, with all attempts anew. Returns how many. Raises NotFoundError for a batch that is not open."""
    if tx.execute(select(Batch.state).where(Batch.id == batch_id)).scalar_one_or_none() != BatchState.OPEN:
        raise NotFoundError(f"batch {batch_id} is not open; only an open batch's failed jobs can be tried again")
    return _move(tx, batch_id, JobState.FAILED, JobState.PENDING, attempts=0, **_NO_ERROR)


@transaction
def link_jobs(tx: Transaction, batch_id: int, images: Mapping[int, int]) -> int:
    """pending → done: jobs whose image exists. ``images``: job → image. Their results say what the first result of the
    image said, with attempt 0 and no time spent. Returns how many."""
    # One that is being removed is waited for, and is gone then: nobody links to what vanishes.
    held_images = select(Image.id).where(Image.id.in_(images.values())).order_by(Image.id)
    tx.execute(held_images.with_for_update(read=True, key_share=True)).all()
    first = select(func.min(Result.job_id)).where(Result.image_id.in_(images.values())).group_by(Result.image_id)
    made = {row.image_id: row._mapping for row in tx.execute(select(Result).where(Result.job_id.in_(first)))}
    pending = select(Job.id).where(Job.id.in_(images), Job.batch_id == batch_id, Job.state == JobState.PENDING)
    job_ids = [job_id for job_id in tx.execute(pending).scalars() if images[job_id] in made]
    spent = {"attempt": 0, "render_seconds": 0.0, "finish_seconds": 0.0, "finished_at": tx.now}
    rows = [{**made[images[job_id]], **spent, "job_id": job_id} for job_id in job_ids]
    if rows:
        tx.execute(insert(Result), rows)
    return _move(tx, batch_id, JobState.PENDING, JobState.DONE, Job.id.in_(job_ids))


# --- release ------------------------------------------------------------------------------------------------------


@transaction
def release_packs(tx: Transaction, batch_id: int, num_packs: int, pack_size: int,
                  start_before: datetime | None = None) -> list[ReleasedPack]:  # fmt: skip
    """pending → queued: the oldest pending jobs of an open batch, but for those whose next try has to wait, in packs
    whose jobs share a pack key. Isolated jobs come last, each in a pack of its own.

    ``start_before``: they are not claimed any later.
    """
    batch = tx.execute(select(Batch).where(Batch.id == batch_id)).one_or_none()
    if batch is None or batch.state != BatchState.OPEN:
        return []
    released = []
    for jobs in _next_packs(tx, batch_id, num_packs, pack_size):
        pack = ReleasedPack(uuid.uuid4().hex, len(jobs.ids), jobs.pack_key)
        row = {"id": pack.id, "batch_id": batch_id, "pair": batch.pair, "pack_key": jobs.pack_key}
        times = {"released_at": tx.now, "start_before": start_before}
        tx.execute(insert(Pack).values(**row, state=PackState.QUEUED, num_jobs=len(jobs.ids), **times))
        _set_state(tx, batch_id, JobState.PENDING, JobState.QUEUED, Job.id.in_(jobs.ids), pack_id=pack.id)
        released.append(pack)
    num_jobs = sum(pack.num_jobs for pack in released)
    _count(tx, batch_id, {JobState.PENDING: -num_jobs, JobState.QUEUED: num_jobs})
    return released


@transaction
def return_queued(tx: Transaction, pair: str | None = None) -> int:
    """queued → pending: packs that may no longer begin, for their window has closed or their batch was paused; or every
    queued pack of a pair, for the order of its batches has changed. Returns how many packs."""
    idle = or_(Pack.start_before <= tx.now, Pack.batch_id.in_(select(Batch.id).where(Batch.state == BatchState.PAUSED)))
    which = idle if pair is None else Pack.pair == pair
    queued = select(Pack.id, Pack.batch_id).where(Pack.state == PackState.QUEUED, which)
    packs = tx.execute(queued.order_by(Pack.id).with_for_update()).all()
    for pack in packs:
        _end_packs(tx, PackState.RETURNED, Pack.id == pack.id)
        _move(tx, pack.batch_id, JobState.QUEUED, JobState.PENDING, Job.pack_id == pack.id)
    return len(packs)


# --- a worker's pack ----------------------------------------------------------------------------------------------


@transaction
def claim_pack(tx: Transaction, pack_id: str, worker_id: str, lease_seconds: float, pack_key: str | None = None
               ) -> ClaimedPack | None:  # fmt: skip
    """queued → running. None where there is nothing to claim: claimed, ended, canceled, too late, or never heard of.

    ``pack_key``: what the worker rendered last ("": nothing yet). Then another queued pack of the same batch may be
    claimed in the place of this one (``packs.suiting``).
    """
    if pack_key is not None:
        pack_id = suiting(tx, pack_id, pack_key)
    lease = {
        "worker_id": worker_id,
        "claimed_at": tx.now,
        "lease_expires_at": tx.now + timedelta(seconds=lease_seconds),
    }
    pack = tx.execute(
        update(Pack)
        .where(Pack.id == pack_id, Pack.state == PackState.QUEUED, in_time(tx), BATCH_IS_OPEN)
        .values(state=PackState.RUNNING, **lease)
        .returning(Pack.batch_id, Pack.pair, Pack.pack_key)
    ).one_or_none()
    if pack is None:
        return None
    _move(tx, pack.batch_id, JobState.QUEUED, JobState.RUNNING, Job.pack_id == pack_id)
    rows = tx.execute(select(Job).where(Job.pack_id == pack_id).order_by(Job.id)).all()
    return ClaimedPack(
        pack_id,
        pack.batch_id,
        pack.pair,
        pack.pack_key,
        worker_id,
        tuple(ClaimedJob(row.id, row.spec, row.meta, row.attempts, row.isolated) for row in rows),
    )


@transaction
def finish_jobs(tx: Transaction, pack: ClaimedPack, environment: Environment, images: Sequence[FinishedImage]) -> None:
    """running → done, with one image row and one result row each. Raises LeaseLostError when the pack is lost.

    Repeated after a commit whose answer was lost, it leaves out what that commit recorded.
    """
    _fence(tx, pack)
    images = results.unrecorded(tx, pack, images)
    results.record(tx, pack, environment, images)
    job_ids = [image.job_id for image in images]
    _end_if_empty(tx, pack, job_ids)
    # Last, because it locks the batch's counters, for which every other worker of the batch waits.
    moved = _move(tx, pack.batch_id, JobState.RUNNING, JobState.DONE, *_jobs_of(pack, job_ids), **_NO_ERROR)
    if moved != len(job_ids):
        raise LeaseLostError(f"pack {pack.id}: some of its jobs are no longer running")


@transaction
def fail_jobs(tx: Transaction, pack: ClaimedPack, job_ids: Sequence[int], failure: Failure, max_attempts: int) -> None:
    """running → pending | failed, as ``farm/retries.py`` decides. Raises LeaseLostError when the pack is lost."""
    _fence(tx, pack)
    _end_if_empty(tx, pack, job_ids)
    _return_jobs(tx, pack.id, pack.batch_id, failure, max_attempts, Job.id.in_(job_ids))


@transaction
def give_back_pack(tx: Transaction, pack: ClaimedPack) -> int:
    """running → pending, no attempt counted (canceled, where the batch was canceled). A lost pack is left alone.

    Returns how many jobs.
    """
    if not _end_packs(tx, PackState.RETURNED, held(pack.id, pack.worker_id)):
        return 0
    canceled = tx.execute(select(Batch.state).where(Batch.id == pack.batch_id)).scalar_one() == BatchState.CANCELED
    state = JobState.CANCELED if canceled else JobState.PENDING
    return _move(tx, pack.batch_id, JobState.RUNNING, state, Job.pack_id == pack.id)


@transaction
def expire_leases(tx: Transaction, max_attempts: int, worker_id: str | None = None, *, blames: bool = True) -> int:
    """running → pending | failed: packs whose lease ran out, or whose worker is known to be dead. Returns how many.

    Without ``blames`` no job is suspected of the death: it was wanted.
    """
    late = Pack.lease_expires_at < tx.now if worker_id is None else Pack.worker_id == worker_id
    packs = tx.execute(
        select(Pack.id, Pack.batch_id, Batch.state.label("batch_state"))
        .join(Batch, Batch.id == Pack.batch_id)
        .where(Pack.state == PackState.RUNNING, late)
        .order_by(Pack.id)
        .with_for_update(of=Pack)
    ).all()
    for pack in packs:
        _end_packs(tx, PackState.EXPIRED, Pack.id == pack.id)
        if pack.batch_state == BatchState.CANCELED or not blames:
            state = JobState.CANCELED if pack.batch_state == BatchState.CANCELED else JobState.PENDING
            _move(tx, pack.batch_id, JobState.RUNNING, state, Job.pack_id == pack.id)
        else:
            failure = Failure.death("its worker died or went silent with it in hand")
            _return_jobs(tx, pack.id, pack.batch_id, failure, max_attempts)
    return len(packs)


# --- the moves themselves -------------------------------------------------------------------------------------------


def _fence(tx: Transaction, pack: ClaimedPack) -> None:
    if tx.execute(select(Pack.id).where(held(pack.id, pack.worker_id)).with_for_update()).first() is None:
        raise LeaseLostError(f"pack {pack.id} is no longer this worker's; what it rendered of it is not recorded")


def _return_jobs(tx: Transaction, pack_id: str, batch_id: int, failure: Failure, max_attempts: int,
                 *where: ColumnElement[bool]) -> None:  # fmt: skip
    pack = tx.execute(select(Pack.num_jobs, Pack.rendering_at).where(Pack.id == pack_id)).one()
    rows = tx.execute(
        select(Job.id, Job.attempts, Job.isolated)
        .where(Job.pack_id == pack_id, Job.state == JobState.RUNNING, *where)
        .order_by(Job.id)
    ).all()
    for job in rows:
        had_the_worker = job.isolated and pack.rendering_at is not None
        alone = failure.is_blamed_on(pack.num_jobs, had_the_worker=had_the_worker)
        end = verdict(retryable=failure.retryable, alone=alone, attempts=job.attempts, max_attempts=max_attempts)
        why = {"error": failure.sentence, "error_code": failure.code, "traceback": failure.traceback}
        again = {"attempts": job.attempts + end.counts, "retry_at": tx.now + timedelta(seconds=end.wait_seconds)}
        _move(tx, batch_id, JobState.RUNNING, end.state, Job.id == job.id, isolated=True, **why, **again)


def _end_packs(tx: Transaction, state: PackState, *where: ColumnElement[bool]) -> int:
    return tx.execute(update(Pack).where(*where).values(state=state, ended_at=tx.now)).rowcount


def _jobs_of(pack: ClaimedPack, job_ids: Sequence[int]) -> tuple[ColumnElement[bool], ...]:
    return (Job.pack_id == pack.id, Job.id.in_(job_ids))


def _end_if_empty(tx: Transaction, pack: ClaimedPack, leaving: Sequence[int]) -> None:
    others = exists().where(Job.pack_id == pack.id, Job.state == JobState.RUNNING, Job.id.not_in(leaving))
    _end_packs(tx, PackState.FINISHED, Pack.id == pack.id, ~others)


def _next_packs(tx: Transaction, batch_id: int, num_packs: int, pack_size: int) -> list[PackOfJobs]:
    """What the next packs hold, of the oldest pending jobs. Their rows are locked."""
    in_time = or_(Job.retry_at.is_(None), Job.retry_at <= tx.now)
    pending = select(Job.id, Job.pack_key, Job.isolated).where(
        Job.batch_id == batch_id, Job.state == JobState.PENDING, in_time
    )
    oldest = pending.order_by(Job.isolated, Job.id).limit(num_packs * pack_size).with_for_update()
    made = packs_of(tx.execute(oldest).all(), num_packs, pack_size)
    for jobs in made:
        missing = 0 if jobs.is_isolated else pack_size - len(jobs.ids)
        if missing:  # further back in the batch there may be more of the key
            more = pending.where(Job.isolated.is_(False), Job.pack_key == jobs.pack_key, Job.id > jobs.ids[-1])
            jobs.ids.extend(tx.execute(more.order_by(Job.id).limit(missing).with_for_update()).scalars())
    return made


def _move(tx: Transaction, batch_id: int, old: JobState, new: JobState, *where: ColumnElement[bool],
          **values: Any) -> int:  # fmt: skip
    """Moves the batch's jobs that are in ``old`` (and ``where``) to ``new``, and its counters with them."""
    moved = _set_state(tx, batch_id, old, new, *where, **values)
    _count(tx, batch_id, {old: -moved, new: moved})
    return moved


def _set_state(tx: Transaction, batch_id: int, old: JobState, new: JobState, *where: ColumnElement[bool],
               **values: Any) -> int:  # fmt: skip
    """The same without the counters."""
    if not may_move(old, new):
        raise AssertionError(f"no job goes from {old} to {new}")
    if new == JobState.PENDING:
        values["pack_id"] = None
    which = (Job.batch_id == batch_id, Job.state == old, *where)
    return tx.execute(update(Job).where(*which).values(state=new, **values)).rowcount


def _count(tx: Transaction, batch_id: int, changes: dict[JobState, int]) -> None:
    counters = {f"num_{state}": getattr(Batch, f"num_{state}") + change for state, change in changes.items() if change}
    if counters:
        tx.execute(update(Batch).where(Batch.id == batch_id).values(counters))
