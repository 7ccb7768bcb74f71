"""A thread that looks at something again and again: what keeps leases and finds hung devices and deaf consumers."""

from abc import ABC, abstractmethod
from threading import Event, Thread


class PeriodicThread(ABC):
    """Looks every ``interval_seconds`` from ``start`` to ``stop``, or until ``stopped`` is set by whoever has it."""

    def __init__(self, name: str, interval_seconds: float, stopped: Event | None = None) -> None:
        self._interval_seconds = interval_seconds
        self._stopped = stopped or Event()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    @abstractmethod
    def look(self) -> bool:
        """Whether it is worth looking again."""

    def _run(self) -> None:
        while not self._stopped.wait(self._interval_seconds) and self.look():
            pass
