"""How jobs, packs and counters are moved: for ``farm/ledger.py`` alone, and its transaction."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, exists, update

from farm.database import Transaction
from farm.job_states import written
from schemas.states import JobState, PackState, may_move
from schemas.tables import Batch, Job, Pack


def move(tx: Transaction, batch_id: int, old: JobState, new: JobState, *where: ColumnElement[bool],
         **values: Any) -> int:  # fmt: skip
    """Moves jobs of the batch, those in ``old`` that ``where`` names, to ``new``, and its counters with them. Of jobs
    that are queued or running, ``where`` names the pack, which the transaction has locked: their rows say the same."""
    moved = write(tx, old, new, *where, **values)
    count(tx, batch_id, {old: -moved, new: moved})
    return moved


def write(tx: Transaction, old: JobState, new: JobState, *where: ColumnElement[bool], **values: Any) -> int:
    """As ``move``, for whoever counts afterwards. Not by the batch where anything narrower is known: a database without
    figures may look through all of it."""
    check_move(old, new)
    if new == JobState.PENDING:
        values["pack_id"] = None
    return tx.execute(update(Job).where(Job.state == written(old), *where).values(state=new, **values)).rowcount


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
    """A pack that ran is finished where it holds no job any more."""
    left = exists().where(Job.pack_id == pack_id, Job.state == JobState.QUEUED)
    end_packs(tx, PackState.FINISHED, Pack.id == pack_id, ~left)
