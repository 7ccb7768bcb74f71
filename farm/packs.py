"""What happens to a pack while its jobs stay where they are: published, begun, its lease renewed."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, and_, exists, update

from farm.database import Transaction, transaction
from schemas.states import BatchState, PackState
from schemas.tables import Batch, Pack

#: of the pack that a statement is about
BATCH_IS_OPEN: Final = exists().where(Batch.id == Pack.batch_id, Batch.state == BatchState.OPEN)


def held(pack_id: str, worker_id: str) -> ColumnElement[bool]:
    """The pack is still in this worker's hands."""
    return and_(Pack.id == pack_id, Pack.worker_id == worker_id, Pack.state == PackState.RUNNING)


@transaction
def note_published(tx: Transaction, pack_ids: Sequence[str]) -> None:
    """Remembers when the packs' messages went out."""
    tx.execute(update(Pack).where(Pack.id.in_(pack_ids)).values(published_at=tx.now))


@transaction
def begin_rendering(tx: Transaction, pack_id: str, worker_id: str) -> bool:
    """Notes that the attempt begins. False where the worker has lost the pack, or its batch was canceled."""
    noted = update(Pack).where(held(pack_id, worker_id), BATCH_IS_OPEN).values(rendering_at=tx.now)
    return bool(tx.execute(noted).rowcount)


@transaction
def renew_leases(tx: Transaction, worker_id: str, pack_ids: Sequence[str], lease_seconds: float) -> frozenset[str]:
    """Extends the leases of this worker's packs. Returns those that go on; the others must stop."""
    ours = (Pack.id.in_(pack_ids), Pack.worker_id == worker_id, Pack.state == PackState.RUNNING, BATCH_IS_OPEN)
    until = tx.now + timedelta(seconds=lease_seconds)
    return frozenset(tx.execute(update(Pack).where(*ours).values(lease_expires_at=until).returning(Pack.id)).scalars())
