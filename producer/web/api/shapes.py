"""What the API answers, as JSON: the shapes that stand in its OpenAPI."""

import json
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from farm.recorded_images import Recorded
from producer.questions.job_results import JobResult
from producer.questions.outlook import GOES_ON, Outlook
from producer.questions.queries import BatchSummary
from producer.web.picture_urls import image_url
from producer.web.problems import Wrong
from schemas.states import BatchState, JobState
from schemas.token import Scope


class Shape(BaseModel):
    """Every field is always there."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class BatchShape(Shape):
    """A batch and its counters. ``waits``: why nothing of it begins; ``late``: what is to say of its deadline."""

    id: int
    name: str
    pair: str
    state: BatchState
    priority: int
    weight: float
    window: str | None
    not_before: datetime | None
    deadline: datetime | None
    created_at: datetime
    num_jobs: int
    num_pending: int
    num_queued: int
    num_running: int
    num_done: int
    num_failed: int
    num_canceled: int
    #: nothing more happens to it by itself
    ended: bool
    waits: str | None = None
    late: str | None = None
    #: when it is done at its rate of the last minutes
    ends: datetime | None = None

    @classmethod
    def of(cls, batch: BatchSummary, ahead: Outlook = GOES_ON) -> Self:
        own = {name: getattr(batch, name) for name in cls.model_fields if hasattr(batch, name)}
        return cls(**own, waits=ahead.waits, late=ahead.late, ends=ahead.ends)


class BatchPage(Shape):
    """``next``: the cursor of the next page; null on the last one."""

    items: list[BatchShape]
    next: str | None


class ImageShape(Shape):
    """The image of a job that is done. ``url``: where its bytes are, below this server; another one for other bytes."""

    url: str
    sha256: str
    width: int
    height: int
    size_bytes: int
    finished_at: datetime


class JobShape(Shape):
    """One job. ``spec``: its fields that are not at their default; seeds are text, for a double would round them."""

    batch_id: int
    number: int
    state: JobState
    spec: dict[str, Any]
    meta: dict[str, str]
    attempts: int
    error_code: str | None
    error: str | None
    image: ImageShape | None

    @classmethod
    def of(cls, job: JobResult) -> Self:
        names = ("batch_id", "number", "state", "meta", "attempts", "error_code", "error")
        own = {name: getattr(job, name) for name in names}
        return cls(**own, spec=json.loads(job.spec_json), image=_image(job))


def _image(job: JobResult) -> ImageShape | None:
    if job.uri is None:
        return None
    names = ("sha256", "width", "height", "size_bytes", "finished_at")
    return ImageShape(url=image_url(job), **{name: getattr(job, name) for name in names})


class JobPage(Shape):
    """``next``: the cursor of the next page; null on the last one. A page may be short, or empty, and not the last."""

    items: list[JobShape]
    next: str | None


class ProvenanceShape(Shape):
    """How an image was made. ``environment``: weights, libraries and device; ``provenance``: what was this image's."""

    spec: dict[str, Any]
    meta: dict[str, str]
    sha256: str | None
    pixel_sha256: str | None
    provenance: dict[str, Any]
    environment: dict[str, Any]

    @classmethod
    def of(cls, recorded: Recorded) -> Self:
        parts = {name: getattr(recorded, name).model_dump(mode="json") for name in ("provenance", "environment")}
        own = {name: getattr(recorded, name) for name in ("meta", "sha256", "pixel_sha256")}
        return cls(**own, **parts, spec=recorded.spec.model_dump(mode="json"))


class WarnedShape(Shape):
    """What is unusual about rows: one kind of it."""

    code: str
    num_rows: int
    first_line: int
    sentence: str


class AcceptedShape(Shape):
    """A batch that is in the ledger. ``num_linked``: of its jobs, those whose image existed. ``num_left_out``: bad rows
    that were left out; the first hundred stand in ``left_out``."""

    batch_id: int
    num_jobs: int
    num_linked: int
    num_left_out: int
    left_out: list[Wrong]
    warnings: list[WarnedShape]


class CallerShape(Shape):
    """Who asks. ``name``: of the token; null without one, on the farm's own machine."""

    name: str | None
    scopes: list[Scope]
    max_priority: int
    max_pending: int | None = Field(description="Jobs that have not ended, at the most; null: any number.")
