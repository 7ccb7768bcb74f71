"""Questions about batches that have images in common (``farm.twins``). Nothing here changes a row."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, func, select

from farm.database import Transaction, question
from producer.dispatching.twin_order import Twin, goes_before
from producer.questions.queries import SUMMARY, BatchSummary
from schemas.states import BatchState, JobState
from schemas.tables import Batch, Image, Job
from schemas.windows import open_until, windows_of


@dataclass(frozen=True)
class GroupedBatch:
    """A batch of a group that has not ended. ``linked_to``: the last image that its jobs were compared with."""

    batch: BatchSummary
    group: int
    linked_to: int

    @property
    def is_under_way(self) -> bool:
        """Packs of it are queued or run."""
        return self.batch.num_queued + self.batch.num_running > 0

    def twin(self, *, in_time: bool) -> Twin:
        batch = self.batch
        may_begin = in_time and batch.state == BatchState.OPEN and batch.num_pending > 0
        return Twin(batch.id, batch.priority, may_begin, self.is_under_way)


@question
def in_groups(tx: Transaction, groups: Collection[int]) -> list[GroupedBatch]:
    """The batches of these groups that have not ended; of canceled ones, those of which something is under way."""
    return _unfinished(tx, Batch.twin_group.in_(groups))


def _unfinished(tx: Transaction, where: ColumnElement[bool]) -> list[GroupedBatch]:
    left = Batch.num_pending + Batch.num_queued + Batch.num_running > 0
    rows = tx.execute(select(*SUMMARY, Batch.twin_group, Batch.linked_to).where(where, left))
    return [_grouped(row) for row in rows]


def _grouped(row: Row[Any]) -> GroupedBatch:
    return GroupedBatch(BatchSummary.of(row), row.twin_group, row.linked_to)


@question
def newest_image(tx: Transaction) -> int:
    """The number of the image that was recorded last; 0 before the first."""
    return int(tx.execute(select(func.coalesce(func.max(Image.id), 0))).scalar_one())


@question
def images_behind(tx: Transaction, image_id: int, limit: int) -> Sequence[Row[Any]]:
    """Those recorded after this one, in order: id, spec_digest, pair_fingerprint, created_at."""
    columns = select(Image.id, Image.spec_digest, Image.pair_fingerprint, Image.created_at)
    return tx.execute(columns.where(Image.id > image_id).order_by(Image.id).limit(limit)).all()


@question
def jobs_of(tx: Transaction, batch_id: int, images: Mapping[str, int]) -> dict[int, int]:
    """job → image: the batch's pending jobs of these specs. ``images``: spec digest → image."""
    # The state is looked at here: asked for, a database without figures might go through all that is pending.
    columns = select(Job.id, Job.spec_digest, Job.state)
    rows = tx.execute(columns.where(Job.batch_id == batch_id, Job.spec_digest.in_(images)))
    return {row.id: images[row.spec_digest] for row in rows if row.state == JobState.PENDING}


@question
def twins_first(tx: Transaction, batches: Iterable[BatchSummary], farm_window: str) -> dict[int, int]:
    """batch → the one with the same images that goes before it, of those batches that wait for one."""
    ids = {batch.id for batch in batches if batch.state == BatchState.OPEN and batch.num_pending > 0}
    its_group = select(Batch.twin_group).where(Batch.id.in_(ids), Batch.twin_group.is_not(None))
    members = _unfinished(tx, Batch.twin_group.in_(its_group)) if ids else ()
    groups = defaultdict[int, list[Twin]](list)
    for one in members:
        groups[one.group].append(one.twin(in_time=_is_in_time(one.batch, tx.now, farm_window)))
    found = {one.batch.id: goes_before(one.batch.id, groups[one.group]) for one in members if one.batch.id in ids}
    return {batch_id: first for batch_id, first in found.items() if first is not None}


def _is_in_time(batch: BatchSummary, now: datetime, farm_window: str) -> bool:
    windows = windows_of(batch.window, farm_window)
    return (batch.not_before is None or batch.not_before <= now) and open_until(windows, now) is not None
