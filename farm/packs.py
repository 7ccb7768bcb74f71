"""What happens to a pack while its jobs stay where they are: published, begun, its lease renewed."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, and_, exists, func, or_, select, update

from farm.database import Transaction, question, transaction
from schemas.records import ClaimedJob, ClaimedPack
from schemas.states import BatchState, JobState, PackState
from schemas.tables import Batch, Job, Pack

#: of the pack that a statement is about
BATCH_IS_OPEN: Final = exists().where(Batch.id == Pack.batch_id, Batch.state == BatchState.OPEN)
#: A pack that has waited for so long is rendered before those of the shape that a device has.
ODD_SHAPE_SECONDS: Final = 60.0
#: what renders may be finished: its batch was not canceled at once
MAY_FINISH: Final = exists().where(Batch.id == Pack.batch_id, Batch.stops_running.is_(False))


def suiting(tx: Transaction, pack_id: str, pack_key: str) -> str:
    """The pack to claim for a message of ``pack_id``: of the same batch, so that the shares of batches stay what they
    are, and if possible of the key that the worker has rendered last, so that its device seldom changes shape.

    A message stands for one queued pack of its batch and not for this very one: where it was claimed already in the
    place of another, the oldest is claimed for it. Where all that were released no later than it are gone, it stands
    for nothing: packs that went back have others now, with messages of their own. A pack that has waited too long goes
    before everything.
    """
    by_then = func.coalesce(Pack.claimed_at, Pack.released_at, type_=Pack.released_at.type).label("by_then")
    columns = (Pack.batch_id, Pack.pair, Pack.state, by_then)
    hinted = tx.execute(select(*columns).where(Pack.id == pack_id)).one_or_none()
    if hinted is None:
        return pack_id
    queued = (Pack.pair == hinted.pair, Pack.state == PackState.QUEUED, Pack.batch_id == hinted.batch_id)
    had_come = exists().where(*queued, Pack.released_at <= hinted.by_then)
    if hinted.state != PackState.QUEUED and not tx.execute(select(had_come)).scalar_one():
        return pack_id
    packs = select(Pack.id, Pack.pack_key, Pack.released_at).where(*queued, in_time(tx)).limit(1)
    packs = packs.order_by(Pack.released_at, Pack.id != pack_id).with_for_update(skip_locked=True)
    oldest = tx.execute(packs).one_or_none()
    if oldest is None or oldest.pack_key == pack_key:
        return oldest.id if oldest else pack_id
    same = None
    if oldest.released_at > tx.now - timedelta(seconds=ODD_SHAPE_SECONDS):
        same = tx.execute(packs.where(Pack.pack_key == pack_key)).one_or_none()
    return str((same or oldest).id)


def held(pack_id: str, worker_id: str) -> ColumnElement[bool]:
    """The pack is still in this worker's hands."""
    return and_(Pack.id == pack_id, Pack.worker_id == worker_id, Pack.state == PackState.RUNNING)


def in_time(tx: Transaction) -> ColumnElement[bool]:
    """The pack may begin now, as far as its batch's window goes."""
    return or_(Pack.start_before.is_(None), Pack.start_before > tx.now)


@transaction
def note_published(tx: Transaction, pack_ids: Sequence[str]) -> None:
    """Remembers when the packs' messages went out."""
    tx.execute(update(Pack).where(Pack.id.in_(pack_ids)).values(published_at=tx.now))


@transaction
def begin_rendering(tx: Transaction, pack_id: str, worker_id: str) -> bool:
    """Notes that the attempt begins. False where the worker has lost the pack, or its batch was canceled or paused."""
    noted = update(Pack).where(held(pack_id, worker_id), BATCH_IS_OPEN).values(rendering_at=tx.now)
    return bool(tx.execute(noted).rowcount)


@transaction
def renew_leases(tx: Transaction, worker_id: str, pack_ids: Sequence[str], lease_seconds: float) -> frozenset[str]:
    """Extends the leases of this worker's packs. Returns those that go on; the others must stop."""
    ours = (Pack.id.in_(pack_ids), Pack.worker_id == worker_id, Pack.state == PackState.RUNNING, MAY_FINISH)
    until = tx.now + timedelta(seconds=lease_seconds)
    return frozenset(tx.execute(update(Pack).where(*ours).values(lease_expires_at=until).returning(Pack.id)).scalars())


@question
def is_known(tx: Transaction, pack_id: str) -> bool:
    """Whether this ledger ever released such a pack."""
    return tx.execute(select(Pack.id).where(Pack.id == pack_id)).first() is not None


@question
def has_waited(tx: Transaction, pair: str, seconds: float) -> bool:
    """Whether a pack of the pair has waited for a worker for so long since its message went out."""
    waiting = (Pack.pair == pair, Pack.state == PackState.QUEUED, BATCH_IS_OPEN)
    old = Pack.published_at < tx.now - timedelta(seconds=seconds)
    return tx.execute(select(Pack.id).where(*waiting, old).limit(1)).first() is not None


@question
def in_rendering(tx: Transaction, worker_id: str) -> ClaimedPack | None:
    """The pack that this worker's device began last, with those of its jobs that have not ended."""
    begun = (Pack.worker_id == worker_id, Pack.state == PackState.RUNNING, Pack.rendering_at.is_not(None))
    pack = tx.execute(select(Pack).where(*begun).order_by(Pack.rendering_at.desc()).limit(1)).one_or_none()
    if pack is None:
        return None
    running = select(Job).where(Job.pack_id == pack.id, Job.state == JobState.RUNNING).order_by(Job.id)
    jobs = tuple(ClaimedJob(row.id, row.spec, row.meta, row.attempts, row.isolated) for row in tx.execute(running))
    return ClaimedPack(pack.id, pack.batch_id, pack.pair, pack.pack_key, worker_id, jobs)
