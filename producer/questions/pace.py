"""How fast workers are, by the packs that they have finished: pure policy. Work is megapixels × steps (``work_of``)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Self

#: A device whose process was stopped for hours in the middle of a pack was no slower for it.
_STOPPED: Final = 10.0
#: of the packs, by their time: the few that took longer may have been stopped, too, or were a device's first
_HIGH: Final = 0.9


@dataclass(frozen=True)
class MeasuredPack:
    """A finished pack. ``seconds``: of its forward passes; what its images waited for a store or the ledger is none of
    them."""

    batch_id: int
    worker_id: str
    work: float
    seconds: float

    @property
    def seconds_per_work(self) -> float:
        return self.seconds / self.work


@dataclass(frozen=True)
class Pace:
    """Of the live workers of a pair. ``work_per_second``: of one of them, on the average of those that were measured;
    None where none was."""

    num_live: int
    num_measured: int
    work_per_second: float | None

    @classmethod
    def of(cls, packs: Sequence[MeasuredPack], num_live: int) -> Self:
        """The time in which a worker had nothing to do does not count against it."""
        usual = median(pack.seconds_per_work for pack in packs) if packs else 0.0
        by_worker = defaultdict[str, list[MeasuredPack]](list)
        for pack in packs:
            if pack.seconds_per_work <= _STOPPED * usual:
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


def longest_seconds(packs: Sequence[MeasuredPack], work: float, batch_id: int | None = None) -> float:
    """What a pack with so much work takes, as nearly all that were measured did; no less than those of its own batch,
    of which some may hold more. 0.0 where none was measured."""
    own = _high(pack.seconds for pack in packs if pack.batch_id == batch_id)
    return max(own, work * _high(pack.seconds_per_work for pack in packs))


def _high(values: Iterable[float]) -> float:
    """Below the highest, where there are several."""
    ordered = sorted(values)
    return ordered[int(_HIGH * (len(ordered) - 1))] if ordered else 0.0


def _rate(packs: Sequence[MeasuredPack]) -> float | None:
    """Work a second."""
    busy = sum(pack.seconds for pack in packs)
    return sum(pack.work for pack in packs) / busy if busy else None
