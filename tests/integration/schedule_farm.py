"""Schedules in a real ledger, for the tests of them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from farm.database import Database
from farm.schedules import NewSchedule, add_schedule
from producer.dispatching.firings import Firings
from producer.dispatching.schedule_queries import LastFiring, find_schedule, schedules
from schemas.cron import CronLine
from schemas.schedule import Missed
from schemas.submit_order import SubmitOrder
from schemas.tables import Batch, Firing, Job
from tests.integration.ledger_farm import TestClock

NIGHTLY = "0 22 * * *"


def add(database: Database, clock: TestClock, manifest: Path, cron: str = NIGHTLY, missed: Missed = Missed.ONCE,
        **order: Any) -> int:  # fmt: skip
    """The schedule ``nightly`` on Berlin's clock. Returns its id."""
    line = CronLine.parse(cron, "Europe/Berlin")
    ordered = SubmitOrder(manifest=str(manifest), pair="tiny", name="cats {date}", **order)
    new = NewSchedule("nightly", cron, "Europe/Berlin", ordered.as_json(), missed)
    add_schedule(database, new, line.next_after(clock.now))
    return find_schedule(database, "nightly").id


def tended(*firings: Firings) -> None:
    """One round of each, to the end of what it began."""
    for one in firings:
        one.tend()
    for one in firings:
        one.wait()


def through(clock: TestClock, until: datetime, *firings: Firings, step_minutes: float = 30) -> None:
    """Rounds until then, by the injected clock."""
    while clock.now < until:
        tended(*firings)
        clock.advance(step_minutes * 60)
    clock.now = until


def names(database: Database) -> list[str]:
    """Of all batches, in order; asserts that each is open, and that nothing is left in staging."""
    with database.begin(read_only=True) as tx:
        rows = tx.execute(select(Batch.name, Batch.state).order_by(Batch.id)).all()
    assert {row.state for row in rows} <= {"open"}
    return [row.name for row in rows]


def prompts(database: Database) -> Sequence[str]:
    with database.begin(read_only=True) as tx:
        return tx.execute(select(Job.spec).order_by(Job.id)).scalars().all()


def last_firing(database: Database) -> LastFiring:
    (found,) = schedules(database)
    assert found[1] is not None
    return found[1]


def firing_states(database: Database) -> list[str]:
    with database.begin(read_only=True) as tx:
        return list(tx.execute(select(Firing.state).order_by(Firing.due_at)).scalars())


def nights(first: str, num: int) -> list[str]:
    """``cats 2026-11-21`` and the days after."""
    day = datetime.fromisoformat(first)
    return [f"cats {day + timedelta(days=n):%Y-%m-%d}" for n in range(num)]
