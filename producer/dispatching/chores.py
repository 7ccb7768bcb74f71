"""What the dispatcher has to do besides releasing. Nothing here changes a row.

One question says what there is; the others are asked only where there is something, which is seldom.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, and_, exists, func, or_, select

from farm.database import Transaction, question
from farm.discarding import IS_DISCARDED
from farm.packs import has_expired, may_not_begin
from producer.questions.queries import SUMMARY, BatchSummary
from schemas.column_types import Utc
from schemas.states import BatchState, PackState
from schemas.tables import Batch, Pack

_LEFT: ColumnElement[int] = Batch.num_pending + Batch.num_queued + Batch.num_running
_HAS_DEADLINE = and_(
    Batch.state.in_((BatchState.OPEN, BatchState.PAUSED)), Batch.deadline.is_not(None), _LEFT > 0
)  # fmt: skip


@dataclass(frozen=True)
class Chores:
    """By the ledger's clock, ``now``: whether leases have run out, queued packs may no longer begin, batches were never
    opened or are being removed, canceled ones have something left, and open ones a deadline."""

    now: datetime
    expired: bool
    not_to_begin: bool
    abandoned: bool
    discarded: bool
    to_sweep: bool
    with_deadline: bool


@question
def chores(tx: Transaction, silent_seconds: float) -> Chores:
    """``silent_seconds``: as ``abandoned_batches``."""
    there_is = {
        "expired": exists().where(has_expired(tx)),
        "not_to_begin": exists().where(Pack.state == PackState.QUEUED, may_not_begin(tx)),
        "abandoned": exists().where(_is_abandoned(tx, silent_seconds)),
        "discarded": exists().where(IS_DISCARDED),
        "to_sweep": exists().where(_is_to_sweep()),
        "with_deadline": exists().where(_HAS_DEADLINE),
    }
    asked = select(tx.from_now().label("now"), *(one.label(name) for name, one in there_is.items()))
    return Chores(**tx.execute(asked).one()._mapping)


@question
def batches_to_sweep(tx: Transaction) -> Sequence[int]:
    """Canceled batches that still have jobs to move, or packs to end."""
    return tx.execute(select(Batch.id).where(_is_to_sweep())).scalars().all()


@question
def abandoned_batches(tx: Transaction, silent_seconds: float) -> Sequence[int]:
    """Batches that were never opened and got no row for so long: whoever submitted them is gone."""
    return tx.execute(select(Batch.id).where(_is_abandoned(tx, silent_seconds))).scalars().all()


@question
def discarded_batch(tx: Transaction) -> int | None:
    """One that is being removed."""
    return tx.execute(select(Batch.id).where(IS_DISCARDED).limit(1)).scalar()


@question
def batches_with_deadline(tx: Transaction) -> list[BatchSummary]:
    """Those of the open and paused ones that are not done."""
    return [BatchSummary.of(row) for row in tx.execute(select(*SUMMARY).where(_HAS_DEADLINE))]


def _is_to_sweep() -> ColumnElement[bool]:
    packs = exists().where(Pack.batch_id == Batch.id, Pack.state == PackState.QUEUED).correlate(Batch)
    return and_(Batch.state == BatchState.CANCELED, ~IS_DISCARDED, or_(Batch.num_pending + Batch.num_queued > 0, packs))


def _is_abandoned(tx: Transaction, silent_seconds: float) -> ColumnElement[bool]:
    silent = func.coalesce(Batch.staged_at, Batch.created_at, type_=Utc) < tx.from_now(-silent_seconds)
    return and_(Batch.state == BatchState.STAGING, silent)
