"""One job as a page: its image and how it was made, what is like it, and two of them compared."""

import json
import re
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response

from farm.recorded_images import recorded_job
from farm.thumbnails import thumbnail
from producer.questions.job_pages import job_of
from producer.questions.job_results import JobResult
from producer.questions.like_jobs import flat_fields, like_jobs, varied_fields
from producer.questions.queries import batch_summary
from producer.web.ahead import shape_of
from producer.web.api.batches import BatchId
from producer.web.api.jobs import Number
from producer.web.callers import Farm, Reader, viewer_of
from producer.web.farm import WebFarm
from producer.web.image_stream import media_type_of, whole_image
from producer.web.page.batches import unserved
from producer.web.page.templating import page
from producer.web.picture_urls import IfNoneMatch, Version, caching, has_it
from schemas.errors import NotFoundError, RequestError
from schemas.printable import json_printable
from schemas.states import JobState

router = APIRouter(include_in_schema=False)

_JOB: Final = re.compile(r"([1-9]\d{0,8})/([1-9]\d{0,14})")
JobName = Annotated[str, Query(max_length=40)]


@router.get("/batches/{batch_id}/jobs/{number}")
def show_job(farm: Farm, caller: Reader, batch_id: BatchId, number: Number) -> Any:
    """The image of a job, or why there is none; how it was made; what is like it."""
    job = job_of(farm.database, batch_id, number)
    recorded = recorded_job(farm.database, batch_id, number) if job.uri is not None else None
    like, batch = like_jobs(farm.database, job), batch_summary(farm.database, batch_id)
    awaited = job.state not in (JobState.DONE, JobState.FAILED, JobState.CANCELED)
    waits = shape_of(farm, batch).waits if awaited else None
    return page("job.html", caller, job=job, batch=batch, spec=job.spec, fields=flat_fields(job), recorded=recorded,
                like=like, row=_manifest_row(job),
                refined=[other for other in like if _differs_by_refiner(job, other)],
                awaited=awaited, waits=waits,
                unserved=unserved(farm, [batch.pair] if awaited else []))  # fmt: skip


@router.get("/batches/{batch_id}/jobs/{number}/thumbnail", dependencies=[Depends(viewer_of)])
def show_thumbnail(
    farm: Farm, batch_id: BatchId, number: Number, version: Version = None, if_none_match: IfNoneMatch = None
) -> Any:
    """The image, small."""
    job = job_of(farm.database, batch_id, number)
    if job.uri is None or job.sha256 is None:
        raise NotFoundError(f"job {job.name} is {job.state} and has no image")
    headers = caching(job.sha256, version)
    if has_it(if_none_match, job.sha256):
        return Response(status_code=304, headers=headers)
    media_type_of(job.uri, job.sha256)
    content = thumbnail(farm.settings.images_url, job.sha256, lambda: whole_image(job))
    return Response(content, media_type="image/webp", headers=headers)


@router.get("/compare")
def compare(farm: Farm, caller: Reader, left: JobName, right: JobName) -> Any:
    """Two images, one over the other, with a slider between them."""
    jobs = [named_job(farm, name) for name in (left, right)]
    return page("compare.html", caller, left=jobs[0], right=jobs[1], varied=varied_fields(*jobs))


def named_job(farm: WebFarm, name: str) -> JobResult:
    """The job called ``3/17``, which has an image. Raises RequestError, NotFoundError."""
    found = _JOB.fullmatch(name.strip())
    if found is None:
        raise RequestError(422, "request", "a job is named by its batch and number: 3/17")
    job = job_of(farm.database, int(found[1]), int(found[2]))
    if job.uri is None:
        raise NotFoundError(f"job {job.name} is {job.state} and has no image")
    return job


def _manifest_row(job: JobResult) -> str:
    """A line of JSONL that asks for the same image again."""
    return json_printable(json.dumps({**json.loads(job.spec_json), **job.meta}, ensure_ascii=False))


def _differs_by_refiner(job: JobResult, other: JobResult) -> bool:
    fields = varied_fields(job, other)
    return other.uri is not None and bool(fields) and all(field.startswith("refiner") for field in fields)
