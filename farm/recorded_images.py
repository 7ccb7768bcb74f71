"""Images with all that is recorded of them: what `nightshift reproduce` starts from."""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import select

from farm.database import Database, Transaction, question
from farm.image_file import read_image_file
from farm.image_store import read_image
from farm.job_states import STATE
from farm.schema import ensure_schema
from schemas.errors import InputError, NotFoundError
from schemas.provenance import RECORD_VERSION, Environment, Provenance
from schemas.spec import JobSpec
from schemas.tables import EnvironmentRow, Image, Job, Result

_JOB: Final = re.compile(r"(\d{1,9})/(\d{1,18})")
_META: Final = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class Recorded:
    """How an image was made. ``name``: what to call it. ``uri``: where its file lies.

    The ledger alone has the hashes: of the file, and of its pixels (uint8 RGB, before a lossy format has them).
    """

    name: str
    uri: str
    spec: JobSpec
    provenance: Provenance
    environment: Environment
    meta: dict[str, str]
    sha256: str | None = None
    pixel_sha256: str | None = None


def recorded_image(database_url: str, target: str) -> tuple[Recorded, bytes]:
    """The image that a user means, and its file: ``BATCH/NUMBER`` from the ledger, or a file with its metadata alone.

    Raises:
        NotFoundError: there is no such job with an image, no such file.
        InputError: the file is no image of Nightshift's.
        StorageError: the file cannot be read.
    """
    job, path = _JOB.fullmatch(target), Path(target)
    if job is None or path.exists():
        record = read_image_file(path).nightshift_record()
        recorded = recorded_in_file(target, record)
        return recorded, read_image(recorded.uri)
    with closing(Database(database_url)) as database:
        ensure_schema(database)
        recorded = recorded_job(database, int(job[1]), int(job[2]))
    return recorded, read_image(recorded.uri)


def recorded_in_file(name: str, record: dict[str, Any]) -> Recorded:
    """From the record that the file carries (``schemas.provenance.image_record``). ``name``: the file's path.

    Raises:
        InputError: the record is of another version, or not whole.
    """
    if record.get("nightshift") != RECORD_VERSION:
        raise InputError(f"{name}: its record is of version {record.get('nightshift')}; this is for {RECORD_VERSION}")
    with _whole(name):
        return Recorded(
            name,
            str(Path(name).absolute()),
            JobSpec.parse(record["spec"]),
            Provenance.model_validate(record["provenance"]),
            Environment.model_validate(record["environment"]),
            _META.validate_python(record["meta"]),
        )


@question
def recorded_job(tx: Transaction, batch_id: int, number: int) -> Recorded:
    """The image of a batch's job. ``number``: the job's place in the batch, from 1.

    Raises:
        NotFoundError: there is no such job, or it has no image.
    """
    name = f"{batch_id}/{number}"
    images = (Image.uri, Image.sha256, Image.pixel_sha256)
    row = tx.execute(
        select(STATE.label("state"), Job.spec, Job.meta, Result.provenance, EnvironmentRow.content, *images)
        .join_from(Job, Result, Result.job_id == Job.id, isouter=True)
        .join(EnvironmentRow, EnvironmentRow.digest == Result.environment_digest, isouter=True)
        .join(Image, Result.image_id == Image.id, isouter=True)
        .where(Job.batch_id == batch_id, Job.number == number)
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"there is no job {name}: no such batch, or not so many jobs in it")
    if row.uri is None:
        raise NotFoundError(f"job {name} is {row.state} and has no image")
    return Recorded(
        f"job {name}",
        row.uri,
        JobSpec.from_json(row.spec),
        Provenance.model_validate(row.provenance),
        Environment.model_validate(row.content),
        row.meta,
        row.sha256,
        row.pixel_sha256,
    )


@contextmanager
def _whole(name: str) -> Iterator[None]:
    """Whatever is wrong with a record becomes an InputError with one sentence."""
    try:
        yield
    except (KeyError, TypeError, ValueError, InputError) as error:  # pydantic's is a ValueError
        raise InputError(f"{name}: its record is not one that this version can read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    match error:
        case ValidationError():
            first = error.errors(include_url=False)[0]
            return ": ".join([".".join(map(str, first["loc"])), first["msg"]]).lstrip(": ")
        case KeyError():
            return f"it has no {error.args[0]}"
        case _:
            return str(error).splitlines()[0]
