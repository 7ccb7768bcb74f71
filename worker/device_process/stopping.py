"""How a worker stops: gently at first, the packs in hand finish; then at once, they go back."""

import logging
from threading import Event, Timer

log = logging.getLogger("nightshift.worker")


class DrainedError(Exception):
    """The worker is stopping, or its device is lost: the pack goes back, and no try of its jobs is counted."""


class Stopping:
    """``gently``: nothing new begins. ``at_once``: what has begun stops, too. Each once set stays set."""

    def __init__(self, limit_seconds: float) -> None:
        self.gently = Event()
        self.at_once = Event()
        self._limit = Timer(limit_seconds, self.at_once.set)
        self._limit.daemon = True

    def ask(self, *, patiently: bool = False) -> None:
        """The first time gently, and at once when the limit is over; the second time at once. Who asks ``patiently``
        sets no limit; the next one does."""
        if self._limit.is_alive() or self.at_once.is_set():
            log.info("stopping at once: the packs in hand go back")
            self.at_once.set()
            return
        log.info("stopping: the pack in hand is finished, what has not begun goes back")
        is_first = not self.gently.is_set()
        self.gently.set()
        if not (patiently and is_first):
            self._limit.start()
