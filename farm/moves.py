"""How jobs, packs and counters are moved: for ``farm/ledger.py`` alone, and its transaction."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, Update, exists, update

from farm.database import Transaction
from schemas.states import JobState, PackState, may_move
from schemas.tables import Batch, Job, Pack

#: what a worker is told of its job
_CLAIMED: Final = (Job.id, Job.spec, Job.meta, Job.attempts, Job.isolated)


def move(tx: Transaction, batch_id: int, old: JobState, new: JobState, *where: ColumnElement[bool],
         **values: Any) -> int:  # fmt: skip
    """Moves jobs of the batch, those in ``old`` that ``where`` names, to ``new``, and its counters with them."""
    moved = tx.execute(_moving(old, new, *where, **values)).rowcount
    count(tx, batch_id, {old: -moved, new: moved})
    return moved


def claim_jobs(tx: Transaction, pack_id: str) -> Sequence[Row[Any]]:
    """queued → running, without the counters: the pack's jobs. Returns what a worker is told of them."""
    claimed = _moving(JobState.QUEUED, JobState.RUNNING, Job.pack_id == pack_id)
    return sorted(tx.execute(claimed.returning(*_CLAIMED)).all(), key=lambda job: job.id)


def end_jobs(tx: Transaction, *where: ColumnElement[bool], **values: Any) -> frozenset[int]:
    """running → done, without the counters. Returns which were moved."""
    return frozenset(tx.execute(_moving(JobState.RUNNING, JobState.DONE, *where, **values).returning(Job.id)).scalars())


def _moving(old: JobState, new: JobState, *where: ColumnElement[bool], **values: Any) -> Update:
    """Not by the batch where anything narrower is known: a database without figures may look through all of it."""
    check_move(old, new)
    if new == JobState.PENDING:
        values["pack_id"] = None
    return update(Job).where(Job.state == old, *where).values(state=new, **values)


def check_move(old: JobState, new: JobState) -> None:
    """Raises AssertionError for a move that no job makes."""
    if not may_move(old, new):
        raise AssertionError(f"no job goes from {old} to {new}")


def count(tx: Transaction, batch_id: int, changes: Mapping[JobState, int]) -> None:
    """The batch's counters."""
    counters = {f"num_{state}": getattr(Batch, f"num_{state}") + change for state, change in changes.items() if change}
    if counters:
        tx.execute(update(Batch).where(Batch.id == batch_id).values(counters))


def end_packs(tx: Transaction, state: PackState, *where: ColumnElement[bool]) -> int:
    """Returns how many."""
    return tx.execute(update(Pack).where(*where).values(state=state, ended_at=tx.from_now())).rowcount


def end_if_empty(tx: Transaction, pack_id: str) -> None:
    """The pack is finished where no job of it is left in ``running``."""
    left = exists().where(Job.pack_id == pack_id, Job.state == JobState.RUNNING)
    end_packs(tx, PackState.FINISHED, Pack.id == pack_id, ~left)
