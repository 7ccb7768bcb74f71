"""Counts the messages that a worker refused, beside the thread that refuses them: a flood of them costs it no SQL."""

import logging
from threading import Event, Lock, Thread

from farm.database import Database
from farm.workers import count_refused
from schemas.errors import UnavailableError

log = logging.getLogger("nightshift.worker")


class Refusals:
    """For ``open_broker(on_refused=...)``. Any thread may call it. A line in the log and a transaction a second at
    most; what the ledger does not take is counted with the next refusal.
    """

    def __init__(self, database: Database, worker_id: str, pause_seconds: float = 1.0) -> None:
        self._database = database
        self._worker_id = worker_id
        self._pause_seconds = pause_seconds
        self._lock = Lock()
        self._num_uncounted = 0
        self._reason = ""
        self._thread: Thread | None = None
        self._closed = Event()

    def __call__(self, reason: str) -> None:
        with self._lock:
            self._num_uncounted += 1
            self._reason = reason
            if self._thread is None:
                self._thread = Thread(target=self._count, name="refusals")
                self._thread.start()

    def close(self) -> None:
        """Waits for what is being counted."""
        self._closed.set()
        if (thread := self._thread) is not None:
            thread.join()

    def _count(self) -> None:
        while num_messages := self._take():
            log.warning("%d messages refused; the last because %s", num_messages, self._reason)
            try:
                count_refused(self._database, self._worker_id, num_messages)
            except UnavailableError as error:
                log.warning("%s; refused messages are counted later", error)
                self._give_back(num_messages)
                return
            self._closed.wait(self._pause_seconds)

    def _take(self) -> int:
        with self._lock:
            num_messages, self._num_uncounted = self._num_uncounted, 0
            if not num_messages:
                self._thread = None
            return num_messages

    def _give_back(self, num_messages: int) -> None:
        with self._lock:
            self._num_uncounted += num_messages
            self._thread = None
