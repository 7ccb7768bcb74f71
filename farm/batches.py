"""Batches as wholes: opened, paused, canceled, put in another order.

Each is one write to a batch's row, so it answers at once however many jobs there are; ``farm/ledger.py`` moves those,
and ``farm/discarding.py`` removes them.
"""

import math
import time
from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import insert, update

from farm import firings, submissions
from farm.database import Database, Transaction, transaction
from farm.discarding import mark_discarded, remove_piece
from schemas.errors import NotFoundError
from schemas.records import BatchDetails
from schemas.states import BatchState
from schemas.tables import Batch
from schemas.timing import ANY_TIME, Timing

_PLAIN: Final = BatchDetails()
#: for ``discard_batch``, where somebody waits for the answer
DISCARD_SECONDS: Final = 1.0
#: whoever waits for SQLite looks again after 25 ms at the most, if it does not wait for long already
_BREATH_SECONDS: Final = 0.03


@transaction
def create_batch(tx: Transaction, name: str, pair: str, priority: int, timing: Timing = ANY_TIME,
                 details: BatchDetails = _PLAIN) -> int:  # fmt: skip
    """A batch in ``staging``: nothing of it is released until ``open_batch``. Returns its id.

    Raises:
        LeaseLostError: somebody else submits the firing by now, or what was received.
    """
    row = {"name": name, "pair": pair, "priority": priority, **vars(timing)}
    row |= {"weight": details.weight, "origin": details.origin}
    inserted = insert(Batch).values(**row, state=BatchState.STAGING, created_at=tx.now, staged_at=tx.now)
    batch_id = int(tx.execute(inserted.returning(Batch.id)).scalar_one())
    if details.fence is not None:
        firings.note_staged(tx, details.fence, batch_id)
    if details.received is not None:
        submissions.note_received(tx, details.received, batch_id)
    return batch_id


@transaction
def open_batch(tx: Transaction, batch_id: int, fence: str | None = None) -> None:
    """staging → open: from here on every job of it is accepted. ``fence``: of the firing that this batch ends.

    Raises:
        LeaseLostError: somebody else submits the firing by now; the batch stays as it is.
    """
    _move(tx, batch_id, (BatchState.STAGING,), BatchState.OPEN, opened_at=tx.now)
    if fence is not None:
        firings.end_firing(tx, fence, batch_id)


def discard_batch(database: Database, batch_id: int, within_seconds: float = math.inf) -> bool:
    """Forgets a batch that was never opened: at once, and its rows piece by piece, between which others come to the
    ledger. What is left after so many seconds the dispatcher removes. One that is opened stays as it is; rows that come
    find it gone. Returns whether it was never opened."""
    until = time.monotonic() + within_seconds
    if not mark_discarded(database, batch_id):
        return False
    while remove_piece(database, batch_id) and time.monotonic() < until:
        time.sleep(_BREATH_SECONDS)
    return True


@transaction
def cancel_batch(tx: Transaction, batch_id: int) -> None:
    """open | paused → canceled, at once: no pack of it is released or begun any more; what renders is finished."""
    _move(tx, batch_id, (BatchState.OPEN, BatchState.PAUSED), BatchState.CANCELED)


@transaction
def pause_batch(tx: Transaction, batch_id: int) -> None:
    """open → paused: no pack of it is released or begun any more; what renders is finished."""
    _move(tx, batch_id, (BatchState.OPEN,), BatchState.PAUSED)


@transaction
def resume_batch(tx: Transaction, batch_id: int) -> None:
    """paused → open."""
    _move(tx, batch_id, (BatchState.PAUSED,), BatchState.OPEN)


@transaction
def stop_running(tx: Transaction, batch_id: int) -> None:
    """Of a canceled batch: what renders is stopped too, within a third of a lease."""
    canceled = (Batch.id == batch_id, Batch.state == BatchState.CANCELED)
    tx.execute(update(Batch).where(*canceled).values(stops_running=True))


@transaction
def reprioritise(tx: Transaction, batch_id: int, priority: int | None, weight: float | None) -> None:
    """Changes its place among the batches; what is None stays. It holds for every claim after ``ledger.return_queued``
    of its pair."""
    values = {name: value for name, value in (("priority", priority), ("weight", weight)) if value is not None}
    live = (Batch.id == batch_id, Batch.state.in_((BatchState.OPEN, BatchState.PAUSED)))
    if not tx.execute(update(Batch).where(*live).values(**values)).rowcount:
        raise NotFoundError(f"batch {batch_id} is neither open nor paused; there is nothing of it to put in order")


def _move(tx: Transaction, batch_id: int, old: Collection[BatchState], new: BatchState, **values: Any) -> None:
    moved = update(Batch).where(Batch.id == batch_id, Batch.state.in_(old)).values(state=new, **values)
    if not tx.execute(moved).rowcount:
        raise NotFoundError(f"batch {batch_id} is not {' or '.join(old)}; only such a batch can become {new}")
