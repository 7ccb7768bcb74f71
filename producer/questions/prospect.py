"""What batches have before them, by the pace of their pairs' last packs. Nothing here changes a row."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import select

from farm.database import Database, Transaction, question
from farm.workers import live_workers
from producer.dispatching.release import next_start, work_of
from producer.questions.measured_packs import LastPacks
from producer.questions.pace import MeasuredPack, Pace, longest_seconds
from producer.questions.queries import SUMMARY, BatchSummary
from producer.questions.twin_batches import twins_first
from schemas.settings import Settings
from schemas.states import BatchState, JobState
from schemas.tables import Batch, Job
from schemas.windows import windows_of


@dataclass(frozen=True)
class Prospect:
    """Of a batch. ``pack_seconds``: what its next pack takes, as far as is known. ``per_second``: its images a second,
    if its pair's workers had nothing else; None where nobody knows. ``seconds_before``: what those of a higher priority
    take before it. ``waits_for``: the batch with the same images that goes before it."""

    pack_seconds: float = 0.0
    per_second: float | None = None
    seconds_before: float = 0.0
    waits_for: int | None = None


UNKNOWN: Final = Prospect()


@dataclass(frozen=True)
class _Waiting:
    """An open batch with pending jobs, and the pack key of the next of them."""

    batch: BatchSummary
    pack_key: str

    @property
    def work(self) -> float:
        """As if all that is left were as the next one."""
        return work_of(self.pack_key, self.batch.num_jobs - self.batch.num_ended)


class _WorkBefore:
    """What batches of a pair wait for: the work of those that have a higher priority, and may begin no later."""

    def __init__(self) -> None:
        self._work = defaultdict[tuple[str, int, datetime], float](float)
        self._begins: dict[int, datetime] = {}

    def note(self, one: _Waiting, begins: datetime | None) -> None:
        if begins is not None:
            self._begins[one.batch.id] = begins
            self._work[one.batch.pair, one.batch.priority, begins] += one.work

    def of(self, one: _Waiting) -> float:
        if one.batch.id not in self._begins:
            return 0.0
        return sum(
            work
            for (pair, priority, begins), work in self._work.items()
            if pair == one.batch.pair and priority > one.batch.priority and begins <= self._begins[one.batch.id]
        )


class Prospects:
    """For who asks again and again: what was measured is remembered. For one thread."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._last_packs = LastPacks(database)

    def of(self, now: datetime, batches: Iterable[BatchSummary]) -> Mapping[int, Prospect]:
        """Of those of which there is anything to say."""
        batches = list(batches)
        firsts = twins_first(self._database, batches, self._settings.window)
        measured = self._measured(now, batches)
        return {one: replace(measured.get(one, UNKNOWN), waits_for=firsts.get(one)) for one in {*measured, *firsts}}

    def _measured(self, now: datetime, batches: Sequence[BatchSummary]) -> Mapping[int, Prospect]:
        """Of those that have a window or a deadline, and jobs that wait: of others nothing is asked."""
        asked = {batch.id: batch for batch in batches if batch.num_pending and (batch.deadline or self._window(batch))}
        if not asked:
            return {}
        pairs = {batch.pair for batch in asked.values()}
        waiting = _waiting(self._database, pairs)
        live, before = live_workers(self._database, self._settings.lease_seconds), self._before(now, waiting)
        packs = {pair: self._last_packs.of(pair) for pair in pairs}
        paces = {pair: Pace.of(packs[pair], live.get(pair, 0)) for pair in pairs}
        return {
            one.batch.id: self._prospect(one, packs[one.batch.pair], paces[one.batch.pair], before)
            for one in waiting
            if one.batch.id in asked
        }

    def pack_seconds(self, pair: str, num_pending: Mapping[int, int]) -> dict[int, float]:
        """batch → what its next pack takes; without those of which that is not known. ``num_pending``: jobs of each."""
        packs = self._last_packs.of(pair)
        keys = _next_pack_keys(self._database, num_pending) if packs else {}
        return {one: self._pack_seconds(packs, one, key, num_pending[one]) for one, key in keys.items()}

    def _prospect(self, one: _Waiting, packs: Sequence[MeasuredPack], pace: Pace, before: "_WorkBefore") -> Prospect:
        pack_seconds = self._pack_seconds(packs, one.batch.id, one.pack_key, one.batch.num_pending)
        if one.batch.deadline is None or pace.work_per_second is None or not pace.num_live:
            return Prospect(pack_seconds)
        work_per_second = pace.work_per_second * pace.num_live
        return Prospect(pack_seconds, work_per_second / work_of(one.pack_key, 1), before.of(one) / work_per_second)

    def _pack_seconds(self, packs: Sequence[MeasuredPack], batch_id: int, pack_key: str, num_pending: int) -> float:
        return longest_seconds(packs, work_of(pack_key, min(num_pending, self._settings.pack_size)), batch_id)

    def _before(self, now: datetime, waiting: Sequence[_Waiting]) -> "_WorkBefore":
        begins = dict[tuple[str | None, datetime], datetime | None]()  # of many batches it is the same
        before = _WorkBefore()
        for one in waiting:
            key = (one.batch.window, max(now, one.batch.not_before or now))
            if key not in begins:
                begins[key] = next_start(windows_of(one.batch.window, self._settings.window), key[1], 0.0)
            before.note(one, begins[key])
        return before

    def _window(self, batch: BatchSummary) -> str:
        return batch.window or self._settings.window


@question
def _next_pack_keys(tx: Transaction, batch_ids: Collection[int]) -> dict[int, str]:
    """batch → that of its pending job that is released next."""
    rows = tx.execute(select(Batch.id, _NEXT_KEY).where(Batch.id.in_(batch_ids)))
    return {row.id: row.pack_key for row in rows if row.pack_key}


@question
def _waiting(tx: Transaction, pairs: Collection[str]) -> list[_Waiting]:
    """The open batches of these pairs that have pending jobs."""
    open_ones = (Batch.state == BatchState.OPEN, Batch.pair.in_(pairs), Batch.num_pending > 0)
    rows = tx.execute(select(*SUMMARY, _NEXT_KEY).where(*open_ones)).all()
    return [_Waiting(BatchSummary.of(row), row.pack_key) for row in rows if row.pack_key]


_NEXT_KEY: Final = (
    select(Job.pack_key)
    .where(Job.batch_id == Batch.id, Job.state == JobState.PENDING)
    .order_by(Job.isolated, Job.id)
    .limit(1)
    .correlate(Batch)
    .scalar_subquery()
    .label("pack_key")
)
