"""Where pictures are, and how long a browser may keep them.

A batch's number comes again where a backup was restored or another farm is at the address, so a path alone says nothing
for ever: a version goes with it, the first digits of the image's sha256. With it a browser need not ask again; without
it, or with another one, it asks each time whether the picture is still the same.
"""

from typing import Annotated, Final

from fastapi import Header, Query

from producer.questions.job_results import JobResult

_DIGITS: Final = 12
_KEPT: Final = "private, max-age=86400, immutable"
_ASKED_AFTER: Final = "private, no-cache"

Version = Annotated[str | None, Query(alias="v", description="The first digits of its sha256: then it may be kept.")]
IfNoneMatch = Annotated[str | None, Header()]


def image_url(job: JobResult) -> str:
    """Of the image of a job that is done."""
    return f"/api/v1/batches/{job.batch_id}/jobs/{job.number}/image?v={_version(job.sha256)}"


def thumbnail_url(job: JobResult) -> str:
    """Of the same, small."""
    return f"/batches/{job.batch_id}/jobs/{job.number}/thumbnail?v={_version(job.sha256)}"


def caching(sha256: str, version: str | None) -> dict[str, str]:
    """The headers of an answer to a request with this version."""
    is_sure = version is not None and version == _version(sha256)
    return {"ETag": f'"{sha256}"', "Cache-Control": _KEPT if is_sure else _ASKED_AFTER}


def has_it(if_none_match: str | None, sha256: str) -> bool:
    """Whether the header names this picture."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return "*" in tags or f'"{sha256}"' in tags


def _version(sha256: str | None) -> str:
    return (sha256 or "")[:_DIGITS]
