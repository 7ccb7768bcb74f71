"""The done jobs of batches as rows to export: asked of the ledger a page at a time, in the manifest's order.

Tables: ``jobs``, ``results``, ``images``, ``batches``, ``environments``.
Nothing is changed, and no transaction stays open.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Final

import msgspec
from sqlalchemy import Row, Text, cast, select

from farm.database import Database, Transaction, question
from producer.exports.exported_fields import Value, spec_values
from schemas.states import JobState
from schemas.tables import Batch, EnvironmentRow, Image, Job, Result

_PAGE: Final = 500
_COLUMNS: Final = (
    *(Job.id, Job.batch_id, Job.number, Job.spec, Batch.pair, Result.environment_digest),
    *(Image.uri, Image.sha256, Image.pixel_sha256, Image.size_bytes, Image.width, Image.height, Image.format),
    Image.pair_fingerprint,
    cast(Job.meta, Text).label("meta"),  # as text: many a row is not looked at further
    cast(Result.provenance, Text).label("provenance"),
)
_DONE: Final = (
    select(*_COLUMNS).join_from(Job, Result, Result.job_id == Job.id).join(Image, Image.id == Result.image_id)
    .join(Batch, Batch.id == Job.batch_id).where(Job.state == JobState.DONE)
)  # fmt: skip


@dataclass(frozen=True)
class DoneJob:
    """One done job with its image: what a row of a dataset is made from."""

    row: Any

    @property
    def name(self) -> str:
        """As in ``nightshift reproduce 3/17``."""
        return f"{self.row.batch_id}/{self.row.number}"

    @property
    def suffix(self) -> str:
        """Of the image's file, without the dot."""
        return "jpg" if self.row.format == "jpeg" else str(self.row.format)

    @cached_property
    def meta(self) -> dict[str, str]:
        found: dict[str, str] = msgspec.json.decode(self.row.meta)
        return found

    @cached_property
    def provenance(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.row.provenance)
        return found

    @cached_property
    def values(self) -> Mapping[str, Value]:
        """Every column of ``exported_fields.KINDS``."""
        row, made = self.row, self.provenance
        return {
            **spec_values(row.spec),
            "job": self.name,
            "pair": row.pair,
            "pair_fingerprint": row.pair_fingerprint,
            "environment": row.environment_digest,
            **{name: made.get(name) for name in ("handoff", "forward_pass_size", "base_steps", "refiner_steps")},
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
            yield from map(DoneJob, page)
            after = page[-1].number


@question
def _page(tx: Transaction, batch_id: int, after: int) -> Sequence[Row[Any]]:
    wanted = _DONE.where(Job.batch_id == batch_id, Job.number > after)
    return tx.execute(wanted.order_by(Job.number).limit(_PAGE)).all()


def jobs_again(database: Database, job_ids: Iterable[int]) -> Iterator[DoneJob]:
    """The done jobs of these ids, in their order, whatever has been finished since."""
    wanted = iter(job_ids)
    while ids := list(islice(wanted, _PAGE)):
        rows = _of_ids(database, ids)
        yield from (DoneJob(rows[job_id]) for job_id in ids)


@question
def _of_ids(tx: Transaction, job_ids: Sequence[int]) -> dict[int, Row[Any]]:
    return {row.id: row for row in tx.execute(_DONE.where(Job.id.in_(job_ids)))}


@question
def environment_contents(tx: Transaction, digests: Iterable[str]) -> dict[str, dict[str, Any]]:
    """digest → what is the same for all images of the environment."""
    rows = tx.execute(select(EnvironmentRow).where(EnvironmentRow.digest.in_(list(digests))))
    return {row.digest: row.content for row in rows}
