"""Which packs this worker has in its hands: how many, and since when there is none."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Hands:
    """Threads share it. A message that is being read counts as a pack."""

    def __init__(self) -> None:
        self._num_packs = 0
        self._empty_since = time.monotonic()
        self._changed = Condition()

    @contextmanager
    def holding(self) -> Iterator[None]:
        with self._changed:
            self._num_packs += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_packs -= 1
                self._empty_since = time.monotonic()
                self._changed.notify_all()

    def idle_seconds(self) -> float:
        """How long there has been nothing in hand; 0 while there is."""
        with self._changed:
            return 0.0 if self._num_packs else time.monotonic() - self._empty_since

    def wait_for_others(self, seconds: float) -> bool:
        """For one who holds a pack: until nobody else does. False where that took longer than so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._num_packs <= 1, seconds)
