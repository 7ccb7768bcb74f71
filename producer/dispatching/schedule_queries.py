"""Questions to the ledger about schedules. Nothing here changes a row."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, select

from farm.database import Transaction, question
from schemas.errors import NotFoundError
from schemas.fields import text_flaw
from schemas.printable import shown
from schemas.schedule import Schedule
from schemas.states import BatchState
from schemas.tables import Batch, Firing, ScheduleRow

_COLUMNS: Final = tuple(getattr(ScheduleRow, name) for name in Schedule.__dataclass_fields__)


@dataclass(frozen=True)
class LastFiring:
    """What came of a schedule's last time. ``batch_state``, ``batch_ended``: of the batch that it made, where that is
    there still."""

    due_at: datetime
    state: str
    tries: int
    retry_at: datetime | None
    error: str | None
    batch_id: int | None
    batch_state: str | None
    batch_ended: bool

    def as_json(self) -> dict[str, Any]:
        retry_at = self.retry_at.isoformat() if self.retry_at else None
        return {**asdict(self), "due_at": self.due_at.isoformat(), "retry_at": retry_at}


@question
def due_schedules(tx: Transaction) -> tuple[datetime, list[Schedule]]:
    """What time it is, and the schedules whose time has come."""
    due = (ScheduleRow.next_due_at <= tx.now, ~ScheduleRow.paused)
    rows = tx.execute(select(*_COLUMNS).where(*due).order_by(ScheduleRow.next_due_at))
    return tx.now, [Schedule(**row._mapping) for row in rows]


@question
def find_schedule(tx: Transaction, name: str) -> Schedule:
    """Raises NotFoundError."""
    found = None
    if text_flaw(name) is None:
        found = tx.execute(select(*_COLUMNS).where(ScheduleRow.name == name)).one_or_none()
    if found is None:
        raise NotFoundError(f"no schedule {shown(name)}; `nightshift schedule list` lists them")
    return Schedule(**found._mapping)


@question
def schedules(tx: Transaction) -> list[tuple[Schedule, LastFiring | None]]:
    """All of them by name, each with its last firing."""
    rows = tx.execute(select(*_COLUMNS).order_by(ScheduleRow.name)).all()
    lasts = _last_firings(tx)
    return [(Schedule(**row._mapping), lasts.get(row.id)) for row in rows]


def _last_firings(tx: Transaction) -> dict[int, LastFiring]:
    last = select(Firing.schedule_id, func.max(Firing.due_at).label("due_at")).group_by(Firing.schedule_id).subquery()
    names = ("due_at", "state", "tries", "retry_at", "error", "batch_id")
    columns: tuple[Any, ...] = tuple(getattr(Firing, name) for name in names)
    same = (Firing.schedule_id == last.c.schedule_id) & (Firing.due_at == last.c.due_at)
    left = (Batch.num_pending + Batch.num_queued + Batch.num_running).label("left")
    found = select(Firing.schedule_id, *columns, Batch.state.label("batch_state"), left).join(last, same)
    return {
        row.schedule_id: LastFiring(
            **{name: row._mapping[name] for name in (*names, "batch_state")},
            batch_ended=row.left == 0 and row.batch_state != BatchState.STAGING,
        )
        for row in tx.execute(found.outerjoin(Batch, Batch.id == Firing.batch_id))
    }
