"""The done jobs of batches as rows to export: asked of the ledger a page at a time, in the manifest's order.

Tables: ``jobs``, ``results``, ``images``, ``batches``, ``environments``.
Nothing is changed, and no transaction stays open.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Self

import msgspec
from sqlalchemy import Row, Text, cast, select

from farm.database import Database, Transaction, question
from producer.exports.exported_fields import Value, spec_values
from schemas.errors import NotFoundError
from schemas.states import JobState
from schemas.tables import Batch, EnvironmentRow, Image, Job, Result

_PAGE: Final = 500
_COLUMNS: Final = (
    *(Job.id, Job.batch_id, Job.number, Job.spec, Batch.pair, Result.environment_digest),
    *(Image.uri, Image.sha256, Image.pixel_sha256, Image.size_bytes, Image.width, Image.height, Image.format),
    Image.pair_fingerprint,
    cast(Job.meta, Text).label("meta"),  # as text: msgspec reads it in a tenth of the time
    cast(Result.provenance, Text).label("provenance"),
)
_DONE: Final = (
    select(*_COLUMNS).join_from(Job, Result, Result.job_id == Job.id).join(Image, Image.id == Result.image_id)
    .join(Batch, Batch.id == Job.batch_id).where(Job.state == JobState.DONE)
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class DoneJob:
    """One done job with its image: what a row of a dataset is made from. ``name``: as in ``nightshift reproduce 3/17``.
    ``values``: of every column of ``exported_fields.KINDS``. All of it is wanted of each job, so it is made at once."""

    row: Any
    name: str
    meta: dict[str, str]
    provenance: dict[str, Any]
    values: Mapping[str, Value]

    @classmethod
    def of(cls, row: Any) -> Self:
        name, made = f"{row.batch_id}/{row.number}", msgspec.json.decode(row.provenance)
        return cls(row, name, msgspec.json.decode(row.meta), made, _values(row, name, made))

    @property
    def suffix(self) -> str:
        """Of the image's file, without the dot."""
        return "jpg" if self.row.format == "jpeg" else str(self.row.format)


def _values(row: Any, name: str, made: dict[str, Any]) -> dict[str, Value]:
    return {
        **spec_values(row.spec),
        "job": name,
        "pair": row.pair,
        "pair_fingerprint": row.pair_fingerprint,
        "environment": row.environment_digest,
        "handoff": made.get("handoff"),
        "forward_pass_size": made.get("forward_pass_size"),
        "base_steps": made.get("base_steps"),
        "refiner_steps": made.get("refiner_steps"),
        "sha256": row.sha256,
        "pixel_sha256": row.pixel_sha256,
        "size_bytes": row.size_bytes,
        "spec": row.spec,
    }


def done_jobs(database: Database, batch_ids: Iterable[int]) -> Iterator[DoneJob]:
    """Of these batches, one after the other, each by job number."""
    for batch_id in batch_ids:
        after = 0
        while page := _page(database, batch_id, after):
            yield from map(DoneJob.of, page)
            after = page[-1].number


@question
def _page(tx: Transaction, batch_id: int, after: int) -> Sequence[Row[Any]]:
    wanted = _DONE.where(Job.batch_id == batch_id, Job.number > after)
    return tx.execute(wanted.order_by(Job.number).limit(_PAGE)).all()


def jobs_again(database: Database, job_ids: Iterable[int]) -> Iterator[DoneJob]:
    """The done jobs of these ids, in their order, whatever has been finished since.

    Raises:
        NotFoundError: one of them has been removed since.
    """
    wanted = iter(job_ids)
    while ids := list(islice(wanted, _PAGE)):
        rows = _of_ids(database, ids)
        if len(rows) < len(ids):
            raise NotFoundError("a batch was removed (`nightshift gc --batch`) while it was exported")
        yield from (DoneJob.of(rows[job_id]) for job_id in ids)


@question
def _of_ids(tx: Transaction, job_ids: Sequence[int]) -> dict[int, Row[Any]]:
    return {row.id: row for row in tx.execute(_DONE.where(Job.id.in_(job_ids)))}


@question
def environment_contents(tx: Transaction, digests: Iterable[str]) -> dict[str, dict[str, Any]]:
    """digest → what is the same for all images of the environment."""
    rows = tx.execute(select(EnvironmentRow).where(EnvironmentRow.digest.in_(list(digests))))
    return {row.digest: row.content for row in rows}
