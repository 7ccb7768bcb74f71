"""How many packs a queue should hold, and of which batches: pure policy."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from schemas.windows import Window, next_opening, open_together, open_until

#: of a full queue, which is then filled up
_REFILL_SHARE: Final = 1 / 4
#: of the hours in which windows are open: in it a pack begins whatever it takes
_OPENING_SHARE: Final = 1 / 10


@dataclass(frozen=True)
class BatchShare:
    """What the dispatcher knows of an open batch when it decides. ``work``: of its jobs that are queued or running, as
    ``work_of`` counts it; asked where it decides anything (``is_disputed``). ``twin_group``: the same for batches that
    have images in common."""

    id: int
    pair: str
    priority: int
    weight: float
    num_pending: int
    work: float = 0.0
    window: str | None = None
    twin_group: int | None = None


def packs_wanted(num_workers: int, num_queued: int, packs_per_worker: int) -> int:
    """How many packs to add, so that each live worker finds a few; none before a quarter of them is missing, for many
    at once are released for little more than one. A queue without workers is primed for one: it starts at once when a
    worker comes."""
    num_full = max(1, num_workers) * packs_per_worker
    missing = num_full - num_queued
    return missing if missing > 0 and missing >= num_full * _REFILL_SHARE else 0


def work_of(pack_key: str, num_jobs: int) -> float:
    """What a pack costs a device, for comparing: megapixels × steps. ``pack_key``: ``JobSpec.pack_key``."""
    size, steps, *_ = pack_key.split("/")
    width, height = size.split("x")
    return int(width) * int(height) * 1e-6 * int(steps) * num_jobs


def start_before(windows: Iterable[Window], now: datetime, pack_seconds: float) -> datetime | None:
    """Until when a pack may begin so that it ends before the first window closes; None where now is too late.

    In the first tenth of the hours it may whatever it takes: one that takes longer than they are would else never be
    rendered, and where that was measured wrongly nothing would ever measure it again. It ends after them.

    ``pack_seconds``: what a pack takes, as measured; 0 where nothing is known.
    """
    hours = open_together(windows, now)
    if hours is None:
        return None
    opening = hours.opens + (hours.closes - hours.opens) * _OPENING_SHARE
    latest = max(hours.closes - timedelta(seconds=pack_seconds), opening)
    return latest if now < latest else None


def next_start(windows: Sequence[Window], now: datetime, pack_seconds: float) -> datetime | None:
    """When, from ``now`` on, a pack may begin; None where the windows are never open together."""
    opens = next_opening(windows, now)
    if opens is None or start_before(windows, opens, pack_seconds) is not None:
        return opens
    closes = open_until(windows, opens)
    assert closes is not None, "they are open by then"
    return next_opening(windows, closes)


def outlasting_seconds(windows: Iterable[Window], opens: datetime, pack_seconds: float) -> float | None:
    """What a pack takes, if that is longer than the windows are open about ``opens``: it ends after them. Else None."""
    hours = open_together(windows, opens)
    outlasts = hours is not None and hours.closes - hours.opens < timedelta(seconds=pack_seconds)
    return pack_seconds if outlasts else None


def is_disputed(batches: Collection[BatchShare]) -> bool:
    """Whether two have the same priority: then it matters how much of each is under way."""
    return len({batch.priority for batch in batches}) < len(batches)


class Turns:
    """Whose turn it is: highest priority first, then the batch whose packs hold the least work for its weight (the
    queue is first in, first out, so equal shares of it are equal shares of the devices' time), then the oldest."""

    def __init__(self, batches: Iterable[BatchShare]) -> None:
        self._waiting = {batch.id: batch for batch in batches if batch.num_pending > 0}

    def next(self) -> BatchShare | None:
        """The batch to take a pack from; None where nothing is pending."""
        if not self._waiting:
            return None
        return min(self._waiting.values(), key=lambda batch: (-batch.priority, batch.work / batch.weight, batch.id))

    def is_undisputed(self, batch: BatchShare) -> bool:
        """No other batch of its priority waits for a turn."""
        return all(other.priority != batch.priority for other in self._waiting.values() if other.id != batch.id)

    def took(self, batch: BatchShare, num_jobs: int, work: float) -> None:
        """So many jobs went from the batch into a pack; 0 where it had none to give."""
        if num_jobs == 0 or num_jobs >= batch.num_pending:
            del self._waiting[batch.id]
            return
        self._waiting[batch.id] = replace(batch, num_pending=batch.num_pending - num_jobs, work=batch.work + work)
