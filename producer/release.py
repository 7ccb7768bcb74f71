"""How many packs a queue should hold, and of which batches: pure policy."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class BatchShare:
    """What the dispatcher knows of an open batch when it decides. ``num_live``: its jobs queued or running."""

    id: int
    pair: str
    priority: int
    num_pending: int
    num_live: int


def packs_wanted(num_workers: int, num_queued: int, packs_per_worker: int) -> int:
    """How many packs to add, so that each live worker finds a few. A queue without workers is primed for one: it
    starts at once when a worker comes."""
    return max(0, max(1, num_workers) * packs_per_worker - num_queued)


def next_batches(batches: Iterable[BatchShare], pack_size: int) -> Iterator[int]:
    """Batch ids in the order in which to take packs from them: highest priority first, then the one with the fewest
    jobs under way (fair share), then the oldest. Assumes that each turn takes ``pack_size`` jobs."""
    waiting = [[-batch.priority, batch.num_live, batch.id, batch.num_pending] for batch in batches]
    while waiting:
        turn = min(waiting)
        yield turn[2]
        turn[1] += pack_size
        turn[3] -= pack_size
        if turn[3] <= 0:
            waiting.remove(turn)
