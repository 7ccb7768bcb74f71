"""What must hold of a night afterwards, asked of its ledger. Reads; changes nothing."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Select, and_, false, func, or_, select

from farm.database import Database
from schemas.tables import Batch, Image, Job, Pack, Result
from schemas.windows import Hours

#: what a tick of the dispatcher that had begun may still release after a priority was changed
_TICK = timedelta(seconds=3)


@dataclass(frozen=True)
class Check:
    """``wanted``: a number, or ``> 0``."""

    question: str
    found: int
    wanted: int | str = 0

    @property
    def is_right(self) -> bool:
        return self.found > 0 if self.wanted == "> 0" else self.found == self.wanted


@dataclass
class Course:
    """When what happened. ``preferred``: from when to when the other batch had the higher priority."""

    openings: list[Hours]
    pauses: list[Hours] = field(default_factory=list)
    preferred: list[datetime] = field(default_factory=list)
    canceled_at: datetime | None = None


def ledger_checks(database: Database, course: Course, num_jobs: int) -> list[Check]:
    night, other = (select(Batch.id).where(Batch.name == name).scalar_subquery() for name in ("night", "other"))
    of_night, of_other = Pack.batch_id == night, Pack.batch_id == other
    paused = or_(*(_within(Pack.rendering_at, hours) for hours in course.pauses))
    since, until = course.preferred
    preferred = Pack.released_at.between(since + _TICK, until)
    done = Job.state == "done"
    asked: list[tuple[str, Select[tuple[int]], int | str]] = [
        ("jobs of the night that are done", _count(Job).where(Job.batch_id == night, done), num_jobs),
        ("its results, one for each job", _results(Result.job_id, night), num_jobs),
        ("its images, each another file", _results(Image.uri, night), num_jobs),
        ("of them done after the second closing",
         _results(Result.job_id, night).where(Result.finished_at >= course.openings[2].opens), "> 0"),
        *((f"packs begun in opening {number}", _count(Pack).where(_within(Pack.rendering_at, hours)), "> 0")
          for number, hours in enumerate(course.openings, 1)),
        ("packs begun while the window was closed", _count(Pack).where(_outside(course.openings)), 0),
        ("packs of the night begun while it was paused", _count(Pack).where(of_night, paused), 0),
        ("packs of the other batch begun meanwhile", _count(Pack).where(of_other, paused), "> 0"),
        ("packs of the other batch released while it was first", _count(Pack).where(of_other, preferred), "> 0"),
        ("packs of the night released meanwhile", _count(Pack).where(of_night, preferred), 0),
        ("jobs of the other batch that were canceled",
         _count(Job).where(Job.batch_id == other, Job.state == "canceled"), "> 0"),
        ("its jobs that are neither done nor canceled",
         _count(Job).where(Job.batch_id == other, Job.state.not_in(("done", "canceled"))), 0),
        ("its packs begun after it was canceled",
         _count(Pack).where(of_other, Pack.rendering_at > course.canceled_at), 0),
    ]  # fmt: skip
    with database.begin(read_only=True) as tx:
        return [Check(question, tx.execute(statement).scalar_one(), wanted) for question, statement, wanted in asked]


def ledger_figures(database: Database, course: Course) -> dict[str, object]:
    """What there was of it, right or wrong."""
    rendering = [(hours.opens, hours.closes) for hours in course.openings]
    with database.begin(read_only=True) as tx:
        done = dict(
            tx.execute(select(Batch.name, Batch.num_done).where(Batch.name.in_(("night", "other")))).tuples().all()
        )
        canceled = tx.execute(select(func.sum(Batch.num_canceled))).scalar_one()
        states = dict(tx.execute(select(Pack.state, func.count()).group_by(Pack.state)).tuples().all())
        alone = tx.execute(_count(Pack).where(Pack.num_jobs == 1, Pack.state == "finished")).scalar_one()
        first, last = tx.execute(select(func.min(Pack.claimed_at), func.max(Result.finished_at)).where(
            Result.pack_id == Pack.id)).one()  # fmt: skip
        seconds = sum((min(last, closes) - max(first, opens)).total_seconds() for opens, closes in rendering)
    return {
        "images": sum(done.values()),
        "jobs_canceled": canceled,
        **{f"packs_{state}": num for state, num in sorted(states.items())},
        "jobs_rendered_alone_after_a_kill": alone,
        "images_a_second_while_open": round(sum(done.values()) / seconds, 1),
    }


def _count(table: type[Job] | type[Pack]) -> Select[tuple[int]]:
    return select(func.count()).select_from(table)


def _results(column: object, batch: object) -> Select[tuple[int]]:
    """How many different values of the column there are among the batch's results."""
    joined = select(func.count(func.distinct(column))).select_from(Result)
    return joined.join(Job, Job.id == Result.job_id).join(Image, Image.id == Result.image_id).where(
        Job.batch_id == batch)  # fmt: skip


def _within(column: object, hours: Hours) -> ColumnElement[bool]:
    return and_(column >= hours.opens, column < hours.closes)


def _outside(openings: list[Hours]) -> ColumnElement[bool]:
    return and_(
        Pack.rendering_at.is_not(None), ~or_(false(), *(_within(Pack.rendering_at, hours) for hours in openings))
    )
