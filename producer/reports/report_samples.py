"""Samples of a batch for its report: done jobs evenly spread over the manifest, the same ones each time, made small."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy import Row, select

from farm.database import Database, Transaction, question
from farm.image_store import read_image
from producer.questions.queries import BatchSummary
from producer.reports.detail import detail
from producer.reports.pictures import fitted_picture
from schemas.errors import StorageError
from schemas.spec import JobSpec
from schemas.tables import Image, Job, Result

MAX_SAMPLES: Final = 200
_BOX: Final = (320, 320)
_QUALITY: Final = 80
#: its multiples, less their whole parts, never keep step with anything
_GOLDEN: Final = 0.6180339887498949


@dataclass(frozen=True)
class Sample:
    """A done job and its picture as a ``data:`` URL. ``flaw``: why there is no picture."""

    number: int
    prompt: str
    detail: str
    width: int = 0
    height: int = 0
    data_url: str = ""
    flaw: str = ""


def samples(database: Database, batch: BatchSummary, num_samples: int) -> Iterator[Sample]:
    """A done job of each of so many equal parts of the batch; one picture at a time is in memory.

    Each part is entered at another place: were it always the first, a sweep whose values fit into a part would show
    one of them alone.
    """
    for part in range(num_samples):
        first, end = (n * batch.num_jobs // num_samples + 1 for n in (part, part + 1))
        middle = first + int(part * _GOLDEN % 1 * (end - first))
        row = _first_done(database, batch.id, middle, end) or _first_done(database, batch.id, first, middle)
        if row is not None:
            yield _sample(row)


@question
def _first_done(tx: Transaction, batch_id: int, first: int, end: int) -> Row[Any] | None:
    done = select(Job.number, Job.spec, Image.uri).join_from(Job, Result, Result.job_id == Job.id).join(Image)
    part = (Job.batch_id == batch_id, Job.number >= first, Job.number < end)
    return tx.execute(done.where(*part).order_by(Job.number).limit(1)).one_or_none()


def _sample(row: Any) -> Sample:
    spec = JobSpec.from_json(row.spec)
    said = (row.number, spec.prompt, detail(spec))
    try:
        picture = fitted_picture(partial(read_image, row.uri), spec.prompt, _BOX)
    except StorageError as error:
        return Sample(*said, flaw=str(error))
    content = io.BytesIO()
    picture.save(content, "WEBP", quality=_QUALITY, method=4)
    encoded = base64.b64encode(content.getvalue()).decode()
    return Sample(*said, picture.width, picture.height, f"data:image/webp;base64,{encoded}")
