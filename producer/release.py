"""How many packs a queue should hold, and of which batches: pure policy."""

from collections.abc import Iterable
from dataclasses import dataclass, replace


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


class Turns:
    """Whose turn it is: highest priority first, then the batch with the fewest jobs under way (fair share), then the
    oldest."""

    def __init__(self, batches: Iterable[BatchShare]) -> None:
        self._waiting = {batch.id: batch for batch in batches if batch.num_pending > 0}

    def next(self) -> int | None:
        """The id of the batch to take a pack from; None where nothing is pending."""
        if not self._waiting:
            return None
        return min(self._waiting.values(), key=lambda batch: (-batch.priority, batch.num_live, batch.id)).id

    def took(self, batch_id: int, num_jobs: int) -> None:
        """So many jobs went from the batch into a pack; 0 where it had none to give."""
        batch = self._waiting[batch_id]
        if num_jobs == 0 or num_jobs >= batch.num_pending:
            del self._waiting[batch_id]
            return
        self._waiting[batch_id] = replace(
            batch, num_pending=batch.num_pending - num_jobs, num_live=batch.num_live + num_jobs
        )
