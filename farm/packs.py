"""What happens to a pack while its jobs stay where they are: published, begun, its lease renewed."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import ColumnElement, and_, exists, or_, select, update

from farm.database import Transaction, question, statement
from schemas.records import ClaimedJob, ClaimedPack
from schemas.states import BatchState, JobState, PackState
from schemas.tables import Batch, Job, Pack

#: of the pack that a statement is about
BATCH_IS_OPEN: Final = exists().where(Batch.id == Pack.batch_id, Batch.state == BatchState.OPEN)
#: what renders may be finished: its batch was not canceled at once
MAY_FINISH: Final = exists().where(Batch.id == Pack.batch_id, Batch.stops_running.is_(False))


def held(pack_id: str, worker_id: str) -> ColumnElement[bool]:
    """The pack is still in this worker's hands."""
    return and_(Pack.id == pack_id, Pack.worker_id == worker_id, Pack.state == PackState.RUNNING)


def has_expired(tx: Transaction) -> ColumnElement[bool]:
    """Of a pack: it runs, and its lease has run out."""
    return and_(Pack.state == PackState.RUNNING, Pack.lease_expires_at < tx.from_now())


def may_not_begin(tx: Transaction) -> ColumnElement[bool]:
    """Of a queued pack: its window has closed, or its batch was paused."""
    paused = Pack.batch_id.in_(select(Batch.id).where(Batch.state == BatchState.PAUSED))
    return or_(Pack.start_before <= tx.from_now(), paused)


def may_be_released(tx: Transaction) -> ColumnElement[bool]:
    """Of a batch: it has jobs for a pack, and need not wait for its ``not_before``; whatever its window says."""
    in_time = or_(Batch.not_before.is_(None), Batch.not_before <= tx.from_now())
    return and_(Batch.state == BatchState.OPEN, Batch.num_pending > 0, in_time)


def queued_below(pair: str, priority: int | None) -> ColumnElement[bool]:
    """A queued pack of the pair, whose batch has a lower priority; None: whatever it has."""
    queued = and_(Pack.pair == pair, Pack.state == PackState.QUEUED)
    if priority is None:
        return queued
    return and_(queued, exists().where(Batch.id == Pack.batch_id, Batch.priority < priority))


@statement
def note_published(tx: Transaction, pack_ids: Sequence[str]) -> None:
    """Remembers when the packs' messages went out."""
    tx.execute(update(Pack).where(Pack.id.in_(pack_ids)).values(published_at=tx.from_now()))


@statement
def begin_rendering(tx: Transaction, pack_id: str, worker_id: str) -> bool:
    """Notes that the attempt begins. False where the worker has lost the pack, its batch was canceled or paused, or it
    would no longer end in its hours: a worker claims one ahead, so the claim was long before."""
    in_time = or_(Pack.start_before.is_(None), Pack.start_before > tx.from_now())
    noted = update(Pack).where(held(pack_id, worker_id), BATCH_IS_OPEN, in_time).values(rendering_at=tx.from_now())
    return bool(tx.execute(noted).rowcount)


@statement
def renew_leases(tx: Transaction, worker_id: str, pack_ids: Sequence[str], lease_seconds: float) -> frozenset[str]:
    """Extends the leases of this worker's packs. Returns those that go on; the others must stop."""
    ours = (Pack.id.in_(pack_ids), Pack.worker_id == worker_id, Pack.state == PackState.RUNNING, MAY_FINISH)
    renewed = update(Pack).where(*ours).values(lease_expires_at=tx.from_now(lease_seconds)).returning(Pack.id)
    return frozenset(tx.execute(renewed).scalars())


@question
def is_known(tx: Transaction, pack_id: str) -> bool:
    """Whether this ledger ever released such a pack."""
    return tx.execute(select(Pack.id).where(Pack.id == pack_id)).first() is not None


@question
def has_waited(tx: Transaction, pair: str, seconds: float) -> bool:
    """Whether a pack of the pair has waited for a worker for so long since its message went out."""
    waiting = (Pack.pair == pair, Pack.state == PackState.QUEUED, BATCH_IS_OPEN)
    old = Pack.published_at < tx.from_now(-seconds)
    return tx.execute(select(Pack.id).where(*waiting, old).limit(1)).first() is not None


@question
def wait_before(tx: Transaction, batch_id: int) -> bool:
    """Whether packs of lower priority wait for a worker, where a pack of this open batch may be released."""
    ready = select(Batch.pair, Batch.priority).where(Batch.id == batch_id, may_be_released(tx))
    batch = tx.execute(ready).one_or_none()
    if batch is None:
        return False
    return tx.execute(select(Pack.id).where(queued_below(batch.pair, batch.priority)).limit(1)).first() is not None


@question
def in_rendering(tx: Transaction, worker_id: str) -> ClaimedPack | None:
    """The pack that this worker's device began last, with those of its jobs that have not ended."""
    begun = (Pack.worker_id == worker_id, Pack.state == PackState.RUNNING, Pack.rendering_at.is_not(None))
    pack = tx.execute(select(Pack).where(*begun).order_by(Pack.rendering_at.desc()).limit(1)).one_or_none()
    if pack is None:
        return None
    left = select(Job).where(Job.pack_id == pack.id, Job.state == JobState.QUEUED).order_by(Job.id)
    jobs = tuple(ClaimedJob(row.id, row.spec, row.meta, row.attempts, row.isolated) for row in tx.execute(left))
    return ClaimedPack(pack.id, pack.batch_id, pack.pair, pack.pack_key, worker_id, jobs)
