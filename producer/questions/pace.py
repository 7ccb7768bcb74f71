"""How fast workers are, by the packs that they have finished: pure policy. Work is megapixels × steps (``work_of``)."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self


@dataclass(frozen=True)
class MeasuredPack:
    """A finished pack. ``began``: when its rendering did."""

    worker_id: str
    work: float
    began: datetime
    ended: datetime


@dataclass(frozen=True)
class Pace:
    """Of the live workers of a pair. ``work_per_second``: of one of them, on the average of those that were measured;
    None where none was."""

    num_live: int
    num_measured: int
    work_per_second: float | None

    @classmethod
    def of(cls, packs: Iterable[MeasuredPack], num_live: int) -> Self:
        """The time in which a worker had nothing to do does not count against it."""
        by_worker = defaultdict[str, list[MeasuredPack]](list)
        for pack in packs:
            by_worker[pack.worker_id].append(pack)
        rates = [rate for theirs in by_worker.values() if (rate := _rate(theirs)) is not None]
        return cls(num_live, len(rates), sum(rates) / len(rates) if rates else None)

    def seconds(self, work: float, num_packs: int) -> float | None:
        """For so much work, in so many packs, if nobody else wants the workers; None where nothing was measured.

        No more workers can help than there are packs. Loading the weights is not counted.
        """
        if self.work_per_second is None or not self.num_live:
            return None
        return work / (self.work_per_second * max(1, min(self.num_live, num_packs)))


def _rate(packs: list[MeasuredPack]) -> float | None:
    """Work a second. A pack begins while the files of the one before it are written: such time counts once."""
    busy, until = timedelta(), datetime.min.replace(tzinfo=packs[0].began.tzinfo)
    for pack in sorted(packs, key=lambda pack: pack.began):
        busy += max(timedelta(), pack.ended - max(pack.began, until))
        until = max(until, pack.ended)
    return sum(pack.work for pack in packs) / busy.total_seconds() if busy else None
