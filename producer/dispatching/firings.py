"""The dispatcher's part in schedules: fires those whose time has come, and submits their firings.

It needs no right to act: the ledger lets each firing happen once, whoever notices it, and however many notice it.
Manifests are read on threads, so that a long one keeps nobody from being dispatched.
"""

import logging
import time
from threading import Event, Thread
from typing import Final

from farm.database import Database
from farm.firings import ClaimedFiring, claim_firing, has_waiting_firing
from farm.schedules import fire
from producer.dispatching.firing import try_firing
from producer.dispatching.schedule_queries import due_schedules
from schemas.errors import InputError
from schemas.printable import printable
from schemas.settings import Settings

log = logging.getLogger("nightshift.schedules")

#: One whose manifest lies on a disk that hangs does not hold up the next.
_MAX_AT_ONCE: Final = 4


class Firings:
    """Those that this process submits. Not shared between threads."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._stop = Event()
        self._threads = dict[str, Thread]()
        self._said_unreadable = set[tuple[int, str]]()

    def tend(self) -> None:
        """Fires what is due, and begins what waits. Returns at once, however long manifests are.

        Raises:
            UnavailableError: the ledger. The next call goes on from there.
        """
        self._threads = {fence: thread for fence, thread in self._threads.items() if thread.is_alive()}
        self._fire()
        while len(self._threads) < _MAX_AT_ONCE and has_waiting_firing(self._database):
            claimed = claim_firing(self._database, self._settings.lease_seconds)
            if claimed is None:  # another dispatcher was faster
                break
            self._begin(claimed)

    def wait(self, seconds: float | None = None) -> None:
        """Until what is in hand has been submitted, for so long at the most."""
        until = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads.values():
            thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """Gives back what is in hand. What does not hear of it in time is taken over when its lease has run out."""
        self._stop.set()
        self.wait(self._settings.stop_seconds)

    def _fire(self) -> None:
        now, schedules = due_schedules(self._database)
        for schedule in schedules:
            try:
                due = schedule.due(now)
            except InputError as error:  # another machine knew the zone
                self._say_unreadable(schedule.id, f"schedule {printable(schedule.name)} cannot fire here: {error}")
                continue
            if fire(self._database, schedule.id, schedule.next_due_at, due) and due.skipped:
                missed = f"{due.due_at:%Y-%m-%d %H:%M} UTC"
                log.warning("schedule %s was due %s and missed it: skipped", printable(schedule.name), missed)

    def _say_unreadable(self, schedule_id: int, sentence: str) -> None:
        if (schedule_id, sentence) not in self._said_unreadable:
            self._said_unreadable.add((schedule_id, sentence))
            log.warning("%s", sentence)

    def _begin(self, claimed: ClaimedFiring) -> None:
        arguments = (self._database, self._settings, claimed, self._stop)
        # A daemon, for a disk that hangs must not keep this process from ending.
        thread = Thread(target=try_firing, args=arguments, name="firing", daemon=True)
        self._threads[claimed.fence] = thread
        thread.start()
