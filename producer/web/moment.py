"""The farm at one moment, as listeners are told of it: one look at the ledger, whatever there is to see."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, or_, select

from farm.database import Transaction, question
from farm.workers import is_live
from producer.questions.prospect import Prospect
from producer.questions.queries import SUMMARY, BatchSummary
from schemas.states import BatchState
from schemas.tables import Batch, Worker

#: the youngest of those that go on; more are not told of by themselves
MAX_BATCHES: Final = 1_000
MAX_WORKERS: Final = 1_000


@dataclass(frozen=True)
class Moment:
    """``batches``: those that go on, those of ``known`` that have ended meanwhile, and those that are new.
    ``prospects``: of those batches that have one."""

    now: datetime
    batches: tuple[BatchSummary, ...]
    workers: Sequence[Row[Any]]
    prospects: Mapping[int, Prospect] = field(default_factory=dict)


@question
def moment(tx: Transaction, known: Collection[int], newest: int | None, lease_seconds: float) -> Moment:
    """``newest``: the highest number of a batch that was seen; None at the first look."""
    left = or_(Batch.num_pending + Batch.num_queued + Batch.num_running > 0, Batch.state == BatchState.STAGING)
    wanted = or_(left, Batch.id.in_(known)) if newest is None else or_(left, Batch.id.in_(known), Batch.id > newest)
    rows = tx.execute(select(*SUMMARY).where(wanted).order_by(Batch.id.desc()).limit(MAX_BATCHES))
    columns = (Worker.id, Worker.host, Worker.device, Worker.pair, Worker.state, Worker.started_at)
    live = select(*columns).where(is_live(tx, lease_seconds)).order_by(Worker.started_at.desc()).limit(MAX_WORKERS)
    return Moment(tx.now, tuple(BatchSummary(**row._mapping) for row in rows), tx.execute(live).all())
