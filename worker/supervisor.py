"""Keeps one worker process per device alive. Holds no model, touches no device."""

import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Final

from farm import ledger
from farm.database import Database
from farm.tether import tethered
from farm.workers import note_worker, was_ready
from schemas.errors import InputError, UnavailableError
from schemas.settings import Settings
from worker.devices import Device

log = logging.getLogger("nightshift.supervisor")

_FIRST_BACKOFF_SECONDS: Final = 1.0
_MAX_BACKOFF_SECONDS: Final = 60.0
#: A process that ran this long before it died starts the backoff anew.
_HEALTHY_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.2
#: Deaths in a row before a process was ready, after which starting again is no use.
_MAX_FAILED_STARTS: Final = 3
_ENVIRONMENT: Final = {
    # transformers would say for each of its image processors, which nobody here uses, that torchvision is missing.
    "TRANSFORMERS_VERBOSITY": "error",
    # On a CPU, OpenMP's threads spin while they wait for each other. Beside any other busy process (a second worker,
    # say) the one that is waited for then gets no core: by default 15 times slower (docs/performance.md).
    "GOMP_SPINCOUNT": "10000",
}


@dataclass
class _Seat:
    """A device and the process that serves it now."""

    device: Device
    process: "subprocess.Popen[bytes] | None" = None
    worker_id: str = ""
    started_at: float = 0.0
    restart_at: float = 0.0
    failed_starts: int = 0
    backoff_seconds: float = field(default=_FIRST_BACKOFF_SECONDS)


class Supervisor:
    """Starts a worker process for each device, starts a fresh one for each that dies, until ``stop``."""

    def __init__(self, database: Database, settings: Settings, pair: str, devices: Sequence[Device]) -> None:
        self._database = database
        self._settings = settings
        self._pair = pair
        self._seats = [_Seat(device) for device in devices]
        self._stop = Event()
        self._hurry = Event()

    def stop(self) -> None:
        """Lets every process finish the pack in its hands; called again, waits no longer: their packs go back.

        May be called from a signal handler.
        """
        (self._hurry if self._stop.is_set() else self._stop).set()

    def run(self) -> int:
        """Returns the exit code: 0 after ``stop``; a process's own code when it says that starting again is no use."""
        try:
            while not self._stop.wait(_POLL_SECONDS):
                codes = [self._tend(seat) for seat in self._seats]
                final = next((code for code in codes if code is not None), None)
                if final is not None:
                    return final
            return 0
        finally:
            self._end_all()

    def _tend(self, seat: _Seat) -> int | None:
        """A final exit code, where the process ended with one."""
        if seat.process is None:
            if time.monotonic() >= seat.restart_at:
                self._start(seat)
            return None
        code = seat.process.poll()
        if code is None:
            return None
        if code == InputError.exit_code:
            return code  # a pair that does not load loads no better the second time
        self._bury(seat, code)
        if seat.failed_starts >= _MAX_FAILED_STARTS:
            log.error("worker on %s died %d times before it was ready; giving up", seat.device, seat.failed_starts)
            return code if code > 0 else 1
        log.error("worker on %s ended with %d; a fresh one starts in %.0f s", seat.device, code, seat.backoff_seconds)
        return None

    def _start(self, seat: _Seat) -> None:
        seat.worker_id, seat.started_at = uuid.uuid4().hex, time.monotonic()
        command = [sys.executable, "-P", "-m", "worker.process", "--worker-id", seat.worker_id]
        command += ["--pair", self._pair, "--device", seat.device.name]
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops its workers gently.
        seat.process = subprocess.Popen(
            tethered(command), env={**_ENVIRONMENT, **os.environ, **seat.device.environment}, start_new_session=True
        )

    def _bury(self, seat: _Seat, code: int) -> None:
        """The process is dead for certain, so its packs go back now; nobody need wait for the lease."""
        lived_seconds = time.monotonic() - seat.started_at
        seat.backoff_seconds = _next_backoff(seat.backoff_seconds, lived_seconds)
        seat.restart_at = time.monotonic() + seat.backoff_seconds
        seat.process = None
        try:
            seat.failed_starts = 0 if was_ready(self._database, seat.worker_id) else seat.failed_starts + 1
            ledger.expire_leases(self._database, self._settings.max_attempts, seat.worker_id)
            note_worker(self._database, seat.worker_id, "failed", f"the process ended with {code}")
        except UnavailableError as error:
            log.warning("%s; the lease of its pack will run out instead", error)

    def _end_all(self) -> None:
        seats = [seat for seat in self._seats if seat.process is not None and seat.process.poll() is None]
        for seat in seats:
            _running(seat).send_signal(signal.SIGTERM)
        for seat in seats:
            while _running(seat).poll() is None:
                if self._hurry.wait(_POLL_SECONDS):
                    _running(seat).kill()
            self._let_go(seat)

    def _let_go(self, seat: _Seat) -> None:
        """It ended because we wanted it, so nothing that it held is suspected of its death."""
        try:
            ledger.expire_leases(self._database, self._settings.max_attempts, seat.worker_id, blames=False)
            note_worker(self._database, seat.worker_id, "stopped")
        except UnavailableError as error:
            log.warning("%s; the lease of its pack will run out instead", error)


def _running(seat: _Seat) -> "subprocess.Popen[bytes]":
    assert seat.process is not None
    return seat.process


def _next_backoff(backoff_seconds: float, lived_seconds: float) -> float:
    if lived_seconds >= _HEALTHY_SECONDS:
        return _FIRST_BACKOFF_SECONDS
    return min(backoff_seconds * 2, _MAX_BACKOFF_SECONDS)
