"""Which of several batches that have images in common goes first: pure policy."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Twin:
    """One batch of a group. ``may_begin``: it has something pending that may be released now; ``is_under_way``: packs
    of it are queued or run."""

    id: int
    priority: int
    may_begin: bool
    is_under_way: bool


def goes_before(batch_id: int, group: Iterable[Twin]) -> int | None:
    """Which batch of the group this one waits for; None where it is its turn.

    The first by priority, then age, of those that may begin; one that may not holds nobody up. What another has under
    way is waited for, so that nothing of it is rendered beside it.
    """
    group = list(group)
    first = min((twin for twin in group if twin.may_begin), key=lambda twin: (-twin.priority, twin.id), default=None)
    if first is not None and first.id != batch_id:
        return first.id
    return min((twin.id for twin in group if twin.is_under_way and twin.id != batch_id), default=None)
