"""The farm at one moment, as listeners are told of it: one look at the ledger, whatever there is to see."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Row, Select, func, or_, select

from farm.database import Transaction, question
from farm.workers import is_live
from producer.questions.prospect import Prospect
from producer.questions.queries import SUMMARY, BatchSummary
from schemas.states import BatchState
from schemas.tables import Batch, Worker

#: the youngest of those that go on; older ones are not told of by themselves
MAX_BATCHES: Final = 1_000
MAX_WORKERS: Final = 1_000


@dataclass(frozen=True)
class Moment:
    """``batches``: the youngest of those that go on, those that are new, and those of ``known`` that the ledger still
    has, the youngest first. ``newest``: the highest number that a batch had so far. ``gone``: of ``known``.
    ``prospects``: of those batches that have one."""

    now: datetime
    batches: tuple[BatchSummary, ...]
    workers: Sequence[Row[Any]]
    newest: int = 0
    gone: frozenset[int] = frozenset()
    prospects: Mapping[int, Prospect] = field(default_factory=dict)


@question
def moment(tx: Transaction, known: Collection[int], newest: int | None, lease_seconds: float) -> Moment:
    """``known``: the numbers of batches that went on at the last look; ``newest``: of that look, None at the first."""
    if newest is None:
        newest = tx.execute(select(func.max(Batch.id))).scalar_one() or 0
    left = or_(Batch.num_pending + Batch.num_queued + Batch.num_running > 0, Batch.state == BatchState.STAGING)
    young = _summaries(tx, select(*SUMMARY).where(or_(left, Batch.id > newest)))
    others = set(known) - {batch.id for batch in young}
    # They have ended, are gone, or as many younger ones have come that they are no more among them.
    rest = _summaries(tx, select(*SUMMARY).where(Batch.id.in_(others))) if others else []
    columns = (Worker.id, Worker.host, Worker.device, Worker.pair, Worker.state, Worker.started_at)
    live = select(*columns).where(is_live(tx, lease_seconds)).order_by(Worker.started_at.desc())
    batches = (*young, *rest)
    return Moment(
        tx.now,
        tuple(sorted(batches, key=lambda batch: -batch.id)),
        tx.execute(live.limit(MAX_WORKERS)).all(),
        newest=max([newest, *(batch.id for batch in batches)]),
        gone=frozenset(others - {batch.id for batch in rest}),
    )


def _summaries(tx: Transaction, batches: Select[*tuple[Any, ...]]) -> list[BatchSummary]:
    rows = tx.execute(batches.order_by(Batch.id.desc()).limit(MAX_BATCHES))
    return [BatchSummary.of(row) for row in rows]
