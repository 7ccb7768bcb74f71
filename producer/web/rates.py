"""How often somebody may ask: a bucket for each, which fills steadily. Pure but for the clock that it is given."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Final

#: who has not asked for longest is forgotten first; a forgotten bucket is full
_REMEMBERED: Final = 10_000


class Rates:
    """``per_minute`` requests of each asker, as many at once. ``clock``: seconds that never go back. For any thread."""

    def __init__(self, per_minute: int, clock: Callable[[], float]) -> None:
        self.per_minute: Final = per_minute
        self._most = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def wait_seconds(self, asker: str, *, is_counted: bool = True) -> float:
        """0.0 where one more may come now, and it is counted if it is to be; else how long until then."""
        now = self._clock()
        with self._lock:
            left, noted_at = self._buckets.pop(asker, (self._most, now))
            left = min(self._most, left + (now - noted_at) * self._per_second)
            wait = 0.0 if left >= 1 else (1 - left) / self._per_second
            self._buckets[asker] = (left - 1 if is_counted and not wait else left, now)
            if len(self._buckets) > _REMEMBERED:
                self._buckets.popitem(last=False)
        return wait
