"""What many open pages ask for at the same moment: the ledger is asked by one of them, and all get its answer."""

from collections.abc import Callable
from threading import Lock
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: no page asks for the same more often than that
_SECONDS: Final = 2.0


class SharedAnswers:
    """``clock``: seconds that never go back. For any thread: who comes while it is asked for waits for the answer."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = Lock()
        self._known: dict[str, tuple[float, Any]] = {}

    def get(self, name: str, ask: Callable[[], T]) -> T:
        """The answer of the last two seconds, or a new one. Raises what ``ask`` raises, and then knows nothing."""
        with self._lock:
            known = self._known.get(name)
            if known is None or self._clock() - known[0] >= _SECONDS:
                answer = ask()
                known = self._known[name] = (self._clock(), answer)
            found: T = known[1]
            return found

    def forget(self, name: str) -> None:
        """After a change."""
        with self._lock:
            self._known.pop(name, None)
