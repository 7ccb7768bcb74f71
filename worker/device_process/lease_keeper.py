"""Renews the leases of the packs in this worker's hands, on a thread of its own, while the device is busy."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock
from typing import Any

from farm import packs
from farm.database import Database
from farm.workers import note_seen
from schemas.errors import UnavailableError
from schemas.records import ClaimedPack
from worker.device_process.gpu_watch import no_reading
from worker.device_process.periodic_thread import PeriodicThread

log = logging.getLogger("nightshift.worker")


class LeaseKeeper(PeriodicThread):
    """Keeps leases from ``start`` to ``stop``. Three renewals fit into one lease, so one may be late.

    leave: called once, when the worker learns that it is being drained, after ``is_draining`` is set.
    reading: of the worker's GPU, now; it must not wait for a driver.
    """

    def __init__(
        self, database: Database, worker_id: str, lease_seconds: float, leave: Callable[[], object],
        reading: Callable[[], dict[str, Any] | None] = no_reading,
    ) -> None:  # fmt: skip
        super().__init__("lease-keeper", lease_seconds / 3)
        self.worker_id = worker_id
        self.is_draining = Event()
        self._leave = leave
        self._reading = reading
        self._database = database
        self._lease_seconds = lease_seconds
        self._held: dict[str, Event] = {}
        self._lock = Lock()

    @contextmanager
    def keep(self, pack: ClaimedPack) -> Iterator[Event]:
        """While inside, the pack's lease is renewed. The event is set when the pack is lost or its batch canceled."""
        lost = Event()
        with self._lock:
            self._held[pack.id] = lost
        try:
            yield lost
        finally:
            with self._lock:
                del self._held[pack.id]

    def look(self) -> bool:
        try:
            self._renew()
        except UnavailableError as error:
            log.warning("leases are not renewed: %s", error)
        return True

    def _renew(self) -> None:
        is_draining = note_seen(self._database, self.worker_id, self._reading())
        if is_draining and not self.is_draining.is_set():
            self.is_draining.set()
            self._leave()
        with self._lock:
            held = dict(self._held)
        if not held:
            return
        go_on = packs.renew_leases(self._database, self.worker_id, list(held), self._lease_seconds)
        for pack_id, lost in held.items():
            if pack_id not in go_on:
                lost.set()
