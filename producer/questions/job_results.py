"""What became of a batch's jobs, as the Python API gives it: one value for each job, read a page at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Select, select

from farm.database import Database, Transaction, question
from farm.job_states import STATE
from schemas.spec import JobSpec
from schemas.states import JobState
from schemas.tables import Image, Job, Result

_PAGE: Final = 500


@dataclass(frozen=True)
class JobResult:
    """One job. ``number``: its place in the batch, from 1. ``meta``: the columns that were no field of the spec.

    What belongs to the image (``uri``, ``sha256``, ``width``, ``height``, ``size_bytes``, ``finished_at``) is None
    until the job is done; ``error_code`` and ``error``, a sentence, say why it failed, or why its last try did.
    """

    batch_id: int
    number: int
    state: JobState
    #: canonical JSON; ``spec`` reads it
    spec_json: str
    meta: dict[str, str]
    attempts: int
    error_code: str | None
    error: str | None
    uri: str | None
    sha256: str | None
    width: int | None
    height: int | None
    size_bytes: int | None
    finished_at: datetime | None

    @property
    def name(self) -> str:
        """``3/17``, as the commands name a job."""
        return f"{self.batch_id}/{self.number}"

    @property
    def spec(self) -> JobSpec:
        """Everything that decides the image's pixels."""
        return JobSpec.from_json(self.spec_json)


_COLUMNS: Final = (
    *(Job.batch_id, Job.number, STATE.label("state"), Job.spec.label("spec_json"), Job.meta, Job.attempts),
    *(Job.error_code, Job.error),
    *(Image.uri, Image.sha256, Image.width, Image.height, Image.size_bytes, Result.finished_at),
)


def job_results(database: Database, batch_id: int) -> Iterator[JobResult]:
    """Every job of the batch, whatever its state, in the order of the manifest; a batch of a million takes no memory.

    Pages are read as they are asked for, so a job that ends meanwhile may be seen before its end, or after it.
    """
    after = 0
    while page := _page(database, batch_id, after):
        yield from page
        after = page[-1].number


@question
def results_of(tx: Transaction, job_ids: Sequence[int], batch_id: int) -> dict[int, JobResult]:
    """job → what became of it, for those of them that are of this batch."""
    ours = Job.batch_id + 0 == batch_id  # or SQLite would walk through all of the batch by its index, for each page
    rows = tx.execute(jobs_with_images().add_columns(Job.id).where(Job.id.in_(job_ids), ours))
    return {row.id: job_result(row) for row in rows}


@question
def _page(tx: Transaction, batch_id: int, after: int) -> list[JobResult]:
    page = jobs_with_images().where(Job.batch_id == batch_id, Job.number > after).order_by(Job.number).limit(_PAGE)
    return [job_result(row) for row in tx.execute(page)]


def jobs_with_images() -> Select[*tuple[Any, ...]]:
    """The statement whose rows ``job_result`` takes."""
    jobs = select(*_COLUMNS).select_from(Job)
    return jobs.outerjoin(Result, Result.job_id == Job.id).outerjoin(Image, Image.id == Result.image_id)


def job_result(row: Any) -> JobResult:
    """Of a row of ``jobs_with_images``."""
    values = {name: getattr(row, name) for name in JobResult.__dataclass_fields__}
    return JobResult(**{**values, "state": JobState(row.state)})
