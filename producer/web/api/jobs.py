"""Jobs over HTTP: a page at a time, one with its provenance, or all of a batch as lines."""

from collections.abc import Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from farm.recorded_images import recorded_job
from producer.questions.job_pages import job_of, jobs_after
from producer.questions.job_results import job_results
from producer.questions.queries import batch_summary
from producer.web.api.batches import BatchId, Cursor, Limit
from producer.web.api.shapes import JobPage, JobShape, ProvenanceShape
from producer.web.callers import Farm, Reader
from producer.web.cursors import after_cursor, cursor
from producer.web.problems import problems
from schemas.states import JobState

router = APIRouter(
    prefix="/batches/{batch_id}", tags=["jobs"], responses=problems(400, 401, 403, 404, 421, 422, 429, 503)
)

_MAX_NUMBER: Final = 2**53 - 1
Number = Annotated[int, Path(ge=1, le=_MAX_NUMBER, description="The job's place in the batch.", examples=[17])]
_LINE: Final = '{"batch_id": 3, "number": 1, "state": "done", "spec": {"prompt": "a lighthouse", "seed": "7"}}\n'


@router.get("/jobs", response_model=JobPage)
def list_jobs(
    farm: Farm,
    _caller: Reader,
    batch_id: BatchId,
    state: Annotated[list[JobState], Query(description="Only these; all where none is named.")] = [],  # noqa: B006
    limit: Limit = 100,
    cursor_text: Annotated[Cursor, Query(alias="cursor")] = None,
) -> Any:
    """The jobs of a batch, in its order. A page may be short, or empty, and have a `next` all the same."""
    states = sorted(set(state))
    after = after_cursor(cursor_text, "jobs", batch_id, states) or 0
    batch_summary(farm.database, batch_id)
    page = jobs_after(farm.database, batch_id, after, states, limit)
    more = None if page.after is None else cursor(page.after, "jobs", batch_id, states)
    return JobPage(items=[JobShape.of(job) for job in page.jobs], next=more)


@router.get("/jobs/{number}", response_model=JobShape)
def show_job(farm: Farm, _caller: Reader, batch_id: BatchId, number: Number) -> Any:
    """One job."""
    return JobShape.of(job_of(farm.database, batch_id, number))


@router.get("/jobs/{number}/provenance", response_model=ProvenanceShape)
def show_provenance(farm: Farm, _caller: Reader, batch_id: BatchId, number: Number) -> Any:
    """How the job's image was made: enough to make it again."""
    return ProvenanceShape.of(recorded_job(farm.database, batch_id, number))


@router.get("/results", response_class=StreamingResponse,
            responses={200: {"content": {"application/x-ndjson": {"example": _LINE}}}})  # fmt: skip
def list_results(farm: Farm, _caller: Reader, batch_id: BatchId) -> Any:
    """Every job of the batch as it is now, a line of JSON each, in its order, however many there are."""
    batch_summary(farm.database, batch_id)
    return StreamingResponse(_lines(farm, batch_id), media_type="application/x-ndjson")


def _lines(farm: Farm, batch_id: int) -> Iterator[str]:
    for job in job_results(farm.database, batch_id):
        yield f"{JobShape.of(job).model_dump_json()}\n"
