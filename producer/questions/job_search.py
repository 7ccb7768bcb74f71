"""The jobs of a batch that somebody looks for, a page at a time. Nothing here changes a row.

What has no index is looked for in the order of the batch, so many rows for a page and no more: a page may be short, or
empty, and not the last.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import JSON, ColumnElement, cast, func, select

from farm.database import Database, Transaction, question
from farm.job_states import is_in
from producer.questions.job_pages import JobPage, jobs_after
from producer.questions.job_results import job_result, jobs_with_images
from schemas.states import JobState
from schemas.tables import Job

_LOOKED_THROUGH: Final = 20_000


@dataclass(frozen=True)
class Wanted:
    """``size``: as ``1024x768``. ``scheduler``: its diffusers class. ``text``: somewhere in the prompt, without regard
    to case (of ASCII alone, where the ledger is SQLite). ``meta``: (column, value). What is empty excludes nothing."""

    states: Collection[JobState] = ()
    size: str = ""
    scheduler: str = ""
    text: str = ""
    meta: tuple[str, str] | None = None

    @property
    def is_by_state_alone(self) -> bool:
        return not (self.size or self.scheduler or self.text or self.meta)


def found_jobs(database: Database, batch_id: int, wanted: Wanted, after: int, limit: int) -> JobPage:
    """Those that come after this place. By state alone a page is as quick as ``jobs_after``'s."""
    if wanted.is_by_state_alone:
        return jobs_after(database, batch_id, after, wanted.states, limit)
    return _looked_through(database, batch_id, wanted, after, limit)


@question
def _looked_through(tx: Transaction, batch_id: int, wanted: Wanted, after: int, limit: int) -> JobPage:
    last = tx.execute(select(func.max(Job.number)).where(Job.batch_id == batch_id)).scalar_one() or 0
    end = min(after + _LOOKED_THROUGH, last)
    stretch = (Job.batch_id == batch_id, Job.number > after, Job.number <= end)
    found = jobs_with_images().where(*stretch, *_conditions(tx, wanted)).order_by(Job.number).limit(limit + 1)
    rows = tx.execute(found).all()
    jobs = [job_result(row) for row in rows[:limit]]
    if len(rows) > limit:
        return JobPage(jobs, jobs[-1].number)
    return JobPage(jobs, None if end == last else end)


def _conditions(tx: Transaction, wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    if wanted.states:
        yield is_in(wanted.states)
    if wanted.size:
        yield Job.pack_key.startswith(f"{wanted.size}/", autoescape=True)
    if wanted.scheduler:
        # the third part of the key, and perhaps the last one
        yield (Job.pack_key + "/").contains(f"/{wanted.scheduler}/", autoescape=True)
    if wanted.text:
        yield _prompt(tx).icontains(wanted.text, autoescape=True)
    if wanted.meta is not None:
        column, value = wanted.meta
        yield Job.meta[column].as_string() == value


def _prompt(tx: Transaction) -> ColumnElement[Any]:
    if tx.dialect == "sqlite":
        return func.json_extract(Job.spec, "$.prompt")
    prompt: ColumnElement[Any] = cast(Job.spec, JSON)["prompt"].as_string()
    return prompt
