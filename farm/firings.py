"""Firings, from the time that has come to the batch. Nothing else writes ``firings.state`` of one that lives.

Whoever submits a firing holds its fence, and renews its lease; opening the batch and ending the firing are one
transaction (``farm/batches.py``), so that a firing makes one batch, wherever a process dies.

    due → submitting → done          submitting → due      something did not answer, or the dispatcher stops
                                      submitting → failed   the order cannot be submitted, or tries are used up
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, exists, insert, or_, select, update

from farm.database import Transaction, question, transaction
from schemas.errors import LeaseLostError, NotFoundError
from schemas.schedule import RETRY_SECONDS, Schedule
from schemas.states import FiringState
from schemas.tables import Firing, ScheduleRow

MAX_TRIES: Final = 1 + len(RETRY_SECONDS)


@dataclass(frozen=True)
class ClaimedFiring:
    """In this process's hands. ``batch_id``: what a submission before this one may have left in staging."""

    fence: str
    schedule: str
    timezone: str
    order: Mapping[str, Any]
    due_at: datetime
    tries: int
    batch_id: int | None


@question
def has_waiting_firing(tx: Transaction) -> bool:
    """Whether ``claim_firing`` would find one."""
    return bool(tx.execute(select(exists().where(_waiting(tx.now)))).scalar_one())


@transaction
def claim_firing(tx: Transaction, lease_seconds: float) -> ClaimedFiring | None:
    """due → submitting, the oldest; or one whose process let its lease run out. None where there is none.

    submitting → failed: one whose process died in every try.
    """
    columns = (Firing.id, Firing.tries, Firing.due_at, Firing.batch_id)
    of_schedule = (ScheduleRow.name.label("schedule"), ScheduleRow.timezone, ScheduleRow.order)
    oldest = (
        select(*columns, *of_schedule).join_from(Firing, ScheduleRow).where(_waiting(tx.now)).order_by(Firing.due_at)
    )
    row = tx.execute(oldest.limit(1).with_for_update(of=Firing, skip_locked=True)).one_or_none()
    if row is None:
        return None
    if row.tries >= MAX_TRIES:
        error = f"its submission ended {row.tries} times without a word; the dispatchers' logs may say why"
        _move(tx, Firing.id == row.id, FiringState.FAILED, error=error, ended_at=tx.now)
        return None
    claim = _claim(tx, lease_seconds, row.tries + 1)
    tx.execute(update(Firing).where(Firing.id == row.id).values(claim))
    return ClaimedFiring(claim["fence"], row.schedule, row.timezone, row.order, row.due_at, row.tries + 1, row.batch_id)


@transaction
def fire_now(tx: Transaction, schedule: Schedule, lease_seconds: float) -> ClaimedFiring:
    """Nothing → submitting, at this moment, beside the times of the schedule's line.

    Raises:
        NotFoundError: the schedule was removed meanwhile.
    """
    if tx.execute(select(ScheduleRow.id).where(ScheduleRow.id == schedule.id).with_for_update()).first() is None:
        raise NotFoundError(f"the schedule {schedule.name!r} has been removed")
    claim = _claim(tx, lease_seconds, 1)
    tx.execute(insert(Firing).values(claim | {"schedule_id": schedule.id, "due_at": tx.now}))
    return ClaimedFiring(claim["fence"], schedule.name, schedule.timezone, schedule.order, tx.now, 1, None)


@transaction
def keep_firing(tx: Transaction, fence: str, lease_seconds: float) -> None:
    """Renews its lease, where it is still held."""
    held = (Firing.fence == fence, Firing.state == FiringState.SUBMITTING)
    tx.execute(update(Firing).where(*held).values(lease_expires_at=tx.now + timedelta(seconds=lease_seconds)))


@transaction
def retry_firing(tx: Transaction, fence: str, error: str, wait_seconds: float) -> None:
    """submitting → due, after a while."""
    _move(tx, Firing.fence == fence, FiringState.DUE, error=error, retry_at=tx.now + timedelta(seconds=wait_seconds))


@transaction
def give_back_firing(tx: Transaction, fence: str) -> None:
    """submitting → due, at once, as if it had not been tried: its dispatcher stops."""
    _move(tx, Firing.fence == fence, FiringState.DUE, tries=Firing.tries - 1)


@transaction
def fail_firing(tx: Transaction, fence: str, error: str) -> None:
    """submitting → failed."""
    _move(tx, Firing.fence == fence, FiringState.FAILED, error=error, ended_at=tx.now)


def note_staged(tx: Transaction, fence: str, batch_id: int) -> None:
    """In the transaction that makes the batch, so that whoever takes the firing over finds it.

    Raises:
        LeaseLostError: somebody else has taken it over already.
    """
    _hold(tx, fence, batch_id=batch_id)


def end_firing(tx: Transaction, fence: str, batch_id: int) -> None:
    """submitting → done, in the transaction that opens the batch. Raises LeaseLostError, and then nothing is opened."""
    _hold(tx, fence, batch_id=batch_id, state=FiringState.DONE, fence=None, error=None, ended_at=tx.now)


def _claim(tx: Transaction, lease_seconds: float, tries: int) -> dict[str, Any]:
    expires_at = tx.now + timedelta(seconds=lease_seconds)
    return {"state": FiringState.SUBMITTING, "fence": uuid.uuid4().hex, "lease_expires_at": expires_at, "tries": tries}


def _waiting(now: datetime) -> ColumnElement[bool]:
    due = and_(Firing.state == FiringState.DUE, or_(Firing.retry_at.is_(None), Firing.retry_at <= now))
    return or_(due, and_(Firing.state == FiringState.SUBMITTING, Firing.lease_expires_at < now))


def _move(tx: Transaction, which: ColumnElement[bool], state: FiringState, **values: Any) -> None:
    """Of whoever holds it still; of nobody else."""
    submitting = (which, Firing.state == FiringState.SUBMITTING)
    tx.execute(update(Firing).where(*submitting).values(state=state, fence=None, lease_expires_at=None, **values))


def _hold(tx: Transaction, fence_held: str, **values: Any) -> None:
    held = (Firing.fence == fence_held, Firing.state == FiringState.SUBMITTING)
    if not tx.execute(update(Firing).where(*held).values(**values)).rowcount:
        raise LeaseLostError("the firing is no longer ours: another process submits it, or its schedule was removed")
