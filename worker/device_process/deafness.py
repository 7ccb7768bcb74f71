"""Whether the consumer has gone deaf: packs wait, the device is idle, and no message arrives. Pure.

There are open reports of consumers of Celery that silently stop after a reconnect.
"""

from typing import NamedTuple


class Look(NamedTuple):
    """What is seen at one time."""

    #: how long nothing has been in hand; 0 while something is
    idle_seconds: float
    #: in this pair's queue in Redis
    num_messages: int
    #: the ledger has packs of this pair that were published long ago
    has_old_packs: bool


class Deafness:
    """Deaf is who was idle, with messages waiting, in every look of so many seconds.

    One look is not enough: a message may have come this very moment. An empty queue is nobody's fault, and while Redis
    or the ledger does not answer nothing is known: ``forget``.
    """

    def __init__(self, patience_seconds: float) -> None:
        self._patience_seconds = patience_seconds
        self._since: float | None = None

    def forget(self) -> None:
        self._since = None

    def is_deaf(self, now: float, look: Look) -> bool:
        """``now``: seconds of a clock that never goes back."""
        if not (look.idle_seconds and look.num_messages and look.has_old_packs):
            self._since = None
            return False
        idle_since = now - look.idle_seconds
        if self._since is None or self._since < idle_since:  # something came in between
            self._since = now
        return now - self._since >= self._patience_seconds
