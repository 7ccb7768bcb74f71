"""Schedules as wholes: added, paused, fired, removed. One function per transaction.

Tables: schedules, firings. What a firing submits is in the hands of ``farm/firings.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, update

from farm.database import Transaction, transaction
from schemas.errors import InputError
from schemas.schedule import Due
from schemas.states import FiringState
from schemas.tables import Firing, ScheduleRow


@dataclass(frozen=True)
class NewSchedule:
    """As ``schemas.schedule.Schedule`` names them."""

    name: str
    cron: str
    timezone: str
    order: Mapping[str, Any]
    missed: str


@transaction
def add_schedule(tx: Transaction, new: NewSchedule, next_due_at: datetime, replace: bool = False) -> None:
    """A schedule that fires from ``next_due_at`` on. ``replace``: in the place of one of this name, paused or not.

    Raises:
        InputError: there is one of this name, and it may not be replaced.
    """
    values = {**vars(new), "next_due_at": next_due_at, "paused": False}
    if replace and tx.execute(update(ScheduleRow).where(ScheduleRow.name == new.name).values(**values)).rowcount:
        return
    added = tx.insert(ScheduleRow).values(**values, created_at=tx.now).on_conflict_do_nothing()
    if tx.execute(added.returning(ScheduleRow.id)).first() is None:
        raise InputError(f"there is a schedule {new.name!r} already; --replace puts this one in its place")


@transaction
def pause_schedule(tx: Transaction, schedule_id: int) -> None:
    """It fires no more. A firing whose time had come goes on."""
    tx.execute(update(ScheduleRow).where(ScheduleRow.id == schedule_id).values(paused=True))


@transaction
def resume_schedule(tx: Transaction, schedule_id: int, next_due_at: datetime) -> None:
    """It fires again, from ``next_due_at`` on: what it was paused over is not caught up."""
    paused = (ScheduleRow.id == schedule_id, ScheduleRow.paused)
    tx.execute(update(ScheduleRow).where(*paused).values(paused=False, next_due_at=next_due_at))


@transaction
def remove_schedule(tx: Transaction, schedule_id: int) -> None:
    """Its firings go with it, also one that is being submitted; the batches that they made stay."""
    tx.execute(delete(Firing).where(Firing.schedule_id == schedule_id))
    tx.execute(delete(ScheduleRow).where(ScheduleRow.id == schedule_id))


@transaction
def fire(tx: Transaction, schedule_id: int, seen_due_at: datetime, due: Due) -> bool:
    """Nothing → due | skipped, and the schedule waits for its next time. Once, whoever else has seen the same
    ``seen_due_at``, and however often. False where it had been done, or the schedule is paused, changed or gone."""
    as_seen = (ScheduleRow.id == schedule_id, ScheduleRow.next_due_at == seen_due_at, ~ScheduleRow.paused)
    if not tx.execute(update(ScheduleRow).where(*as_seen).values(next_due_at=due.next_due_at)).rowcount:
        return False
    state = FiringState.SKIPPED if due.skipped else FiringState.DUE
    row = {"schedule_id": schedule_id, "due_at": due.due_at, "state": state}
    row["ended_at"] = tx.now if due.skipped else None
    return tx.execute(tx.insert(Firing).values(row).on_conflict_do_nothing().returning(Firing.id)).first() is not None
