"""The bytes of images over HTTP. A request names a job, never a key or a path: the ledger knows where the file is."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Response
from fastapi.responses import StreamingResponse

from producer.questions.job_pages import job_of
from producer.web.api.batches import BatchId
from producer.web.api.jobs import Number
from producer.web.callers import Farm, viewer_of
from producer.web.image_stream import MEDIA_TYPES, Span, blocks, media_type_of, opened_image, wanted_span
from producer.web.picture_urls import IfNoneMatch, Version, caching, has_it
from producer.web.problems import problem_response, problems
from schemas.errors import NotFoundError

router = APIRouter(
    prefix="/batches/{batch_id}/jobs/{number}", tags=["images"],
    responses=problems(400, 401, 403, 404, 416, 421, 422, 429, 503),
)  # fmt: skip

_BYTES: Final = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()}


@router.get("/image", response_class=StreamingResponse, dependencies=[Depends(viewer_of)],
            responses={200: {"content": _BYTES, "description": "The file, with all its metadata."},
                       206: {"content": _BYTES, "description": "The part of it that `Range` asks for."},
                       304: {"description": "It is the file that `If-None-Match` names."}})  # fmt: skip
def show_image(
    farm: Farm,
    batch_id: BatchId,
    number: Number,
    version: Version = None,
    if_none_match: IfNoneMatch = None,
    range_header: Annotated[str | None, Header(alias="Range")] = None,
) -> Any:
    """The image of a job that is done. Its ETag is its sha256."""
    job = job_of(farm.database, batch_id, number)
    if job.uri is None or job.sha256 is None or job.size_bytes is None:
        raise NotFoundError(f"job {job.name} is {job.state} and has no image")
    headers = caching(job.sha256, version) | {"Accept-Ranges": "bytes"}
    if has_it(if_none_match, job.sha256):
        return Response(status_code=304, headers=headers)
    span, size = wanted_span(range_header, job.size_bytes), job.size_bytes
    if span is None:
        farm.metrics.refused("range")
        sentence = f"the image has {size:,} bytes"
        return problem_response(416, "range", sentence, headers={"Content-Range": f"bytes */{size}"})
    kind = media_type_of(job.uri, job.sha256)
    return StreamingResponse(blocks(opened_image(job), span), 200 if span == Span(0, size) else 206,
                             headers | _told(span, size), kind)  # fmt: skip


def _told(span: Span, size: int) -> dict[str, str]:
    length = {"Content-Length": str(span.end - span.start)}
    is_part = span != Span(0, size)
    return length | ({"Content-Range": f"bytes {span.start}-{span.end - 1}/{size}"} if is_part else {})
