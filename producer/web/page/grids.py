"""The jobs of one prompt laid out by two fields that vary among them."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from producer.questions.job_pages import job_of
from producer.questions.job_results import JobResult
from producer.questions.like_jobs import flat_fields, like_jobs
from producer.web.api.batches import BatchId
from producer.web.callers import Farm, Reader
from producer.web.page.templating import page

router = APIRouter(prefix="/batches/{batch_id}", include_in_schema=False)

_FIELD: Final = Query(max_length=60)


@router.get("/grid")
def show_grid(
    farm: Farm, caller: Reader, batch_id: BatchId, job: Annotated[int, Query(ge=1, le=2**53 - 1)] = 1,
    x: Annotated[str, _FIELD] = "", y: Annotated[str, _FIELD] = "",
) -> Any:  # fmt: skip
    """Of the job's prompt; without fields that are named, by the two that vary most."""
    middle = job_of(farm.database, batch_id, job)
    jobs = sorted([middle, *like_jobs(farm.database, middle)], key=lambda one: one.number)
    values = varying(jobs)
    fields = sorted(values, key=lambda name: -len(values[name]))
    x = x if x in values else (fields[0] if fields else "")
    y = y if y in values and y != x else next((name for name in fields if name != x), "")
    return page("grid.html", caller, batch_id=batch_id, job=middle, fields=fields, x=x, y=y,
                columns=values.get(x, [""]), rows=values.get(y, [""]), cells=_cells(jobs, x, y))  # fmt: skip


def varying(jobs: list[JobResult]) -> dict[str, list[str]]:
    """field → its values in the order of the jobs, for fields of more than one."""
    flat = [flat_fields(job) for job in jobs]
    names = dict.fromkeys(name for fields in flat for name in fields)
    values = {name: list(dict.fromkeys(fields.get(name, "–") for fields in flat)) for name in names}
    return {name: found for name, found in values.items() if len(found) > 1}


def _cells(jobs: list[JobResult], x: str, y: str) -> dict[tuple[str, str], JobResult]:
    """(value of x, value of y) → the first job that has both."""
    cells: dict[tuple[str, str], JobResult] = {}
    for job in jobs:
        fields = flat_fields(job)
        cells.setdefault((fields.get(x, "–") if x else "", fields.get(y, "–") if y else ""), job)
    return cells
