"""What the packs that a pair finished last took its devices. Nothing here changes a row.

By their results and not by when they began and ended: a pack ends when its images are stored and recorded, and a store
that is full for a night, or a machine that sleeps, would make it one that takes a night.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Row, Select, func, select

from farm.database import Database, Transaction, question
from producer.dispatching.release import work_of
from producer.questions.pace import MeasuredPack
from schemas.states import PackState
from schemas.tables import Job, Pack, Result

_LAST_PACKS: Final = 50
#: of very large packs fewer are looked at
_MOST_JOBS: Final = 2_000

#: of a finished pack
COLUMNS: Final = (Pack.id, Pack.batch_id, Pack.worker_id, Pack.pack_key, Pack.num_jobs)


class LastPacks:
    """Of any pair. What was measured is remembered until another pack has ended: who asks each second asks little."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, tuple[str, list[MeasuredPack]]] = {}

    def of(self, pair: str) -> list[MeasuredPack]:
        """The youngest first."""
        rows = last_finished(self._database, pair)
        if not rows:
            return []
        if pair not in self._known or self._known[pair][0] != rows[0].id:
            self._known[pair] = rows[0].id, measured(self._database, not_too_many(rows, _MOST_JOBS))
        return self._known[pair][1]


@question
def last_finished(tx: Transaction, pair: str) -> Sequence[Row[Any]]:
    """The youngest first."""
    # The end is there in any case; said, it is what the index holds that has them in their order.
    finished = (Pack.pair == pair, Pack.state == PackState.FINISHED, Pack.ended_at.is_not(None))
    return tx.execute(select(*COLUMNS).where(*finished).order_by(Pack.ended_at.desc()).limit(_LAST_PACKS)).all()


@question
def measured(tx: Transaction, packs: Sequence[Row[Any]]) -> list[MeasuredPack]:
    """Rows of ``COLUMNS``, but for those without an image: their jobs failed."""
    took = _device_seconds(tx, [pack.id for pack in packs])
    return [
        MeasuredPack(pack.batch_id, pack.worker_id, work_of(pack.pack_key, num_images), seconds)
        for pack in packs
        if pack.id in took
        for num_images, seconds in [took[pack.id]]
    ]


def not_too_many(packs: Sequence[Row[Any]], most_jobs: int) -> Sequence[Row[Any]]:
    """The first of them, with about so many jobs; one at least."""
    num_jobs = 0
    for place, pack in enumerate(packs, 1):
        num_jobs += pack.num_jobs
        if num_jobs >= most_jobs:
            return packs[:place]
    return packs


def _device_seconds(tx: Transaction, pack_ids: Sequence[str]) -> Mapping[str, tuple[int, float]]:
    """pack → its images and the seconds of its forward passes."""
    return {row.pack_id: (row.num_images, row.seconds) for row in tx.execute(_taken(pack_ids))}


def _taken(pack_ids: Sequence[str]) -> Select[*tuple[str | None, int, float]]:
    # By themselves: joined at once, a server might go through all jobs in the order of their results.
    jobs = select(Job.id, Job.pack_id).where(Job.pack_id.in_(pack_ids)).cte("ours")
    ours = jobs.prefix_with("MATERIALIZED", dialect="postgresql").c
    # The images of a pass carry the same seconds, and two passes never took the same to the last digit.
    seconds = func.sum(Result.render_seconds.distinct()).label("seconds")
    taken = select(ours.pack_id, func.count().label("num_images"), seconds).join(Result, Result.job_id == ours.id)
    return taken.where(Result.attempt > 0).group_by(ours.pack_id)
