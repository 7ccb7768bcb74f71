"""Keeps one worker process per device alive, except where it is drained. Holds no model, touches no device."""

import logging
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from threading import Event
from typing import Final

from farm import ledger
from farm.database import Database
from farm.draining import is_draining
from farm.tether import tethered
from farm.workers import last_words, note_worker, was_ready
from schemas.errors import InputError, UnavailableError
from schemas.settings import Settings
from worker.host.assignments import Assignment
from worker.host.burial import bury
from worker.host.seat import Seat

log = logging.getLogger("nightshift.supervisor")

_POLL_SECONDS: Final = 0.2
#: how often the ledger is asked whether a drained device may go on
_DRAINED_LOOK_SECONDS: Final = 5.0
#: A process that was told to stop at once has this long for it.
KILL_SECONDS: Final = 5.0
#: of processes that were told to end: the second while it was loading
_GENTLE_ENDS: Final = (0, -signal.SIGTERM)
#: of processes that have written why they end
_HAVE_SPOKEN: Final = (InputError.exit_code, UnavailableError.exit_code)
_ENVIRONMENT: Final = {
    # transformers would say for each of its image processors, which nobody here uses, that torchvision is missing.
    "TRANSFORMERS_VERBOSITY": "error",
    # On a CPU, OpenMP's threads spin while they wait for each other. Beside any other busy process (a second worker,
    # say) the one that is waited for then gets no core: by default 15 times slower (docs/performance.md).
    "GOMP_SPINCOUNT": "10000",
}


class Supervisor:
    """Starts a worker process for each device, starts a fresh one for each that dies, until ``stop``.

    ``environment``: what all of them get besides this process's own.
    """

    def __init__(
        self, database: Database, settings: Settings, assignments: Sequence[Assignment],
        environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.seats = tuple(Seat(one.device, one.pair) for one in assignments)
        #: by the monotonic clock: when it last looked at its processes
        self.looked_at = time.monotonic()
        self._database = database
        self._settings = settings
        self._environment = environment or {}
        self._stop = Event()
        self._hurry = Event()

    def stop(self) -> None:
        """Lets every process finish the packs in its hands, for ``stop_seconds`` at the most; called again, waits no
        longer: they go back.

        May be called from a signal handler.
        """
        (self._hurry if self._stop.is_set() else self._stop).set()

    def run(self) -> int:
        """Returns the exit code: 0 after ``stop``; when every device is out of service, what the processes of one said
        that could not start, else 1."""
        try:
            while not self._stop.wait(_POLL_SECONDS):
                self.looked_at = time.monotonic()
                for seat in self.seats:
                    self._tend(seat)
                codes = [seat.final_code for seat in self.seats if seat.final_code is not None]
                if len(codes) == len(self.seats):
                    return max(codes)
            return 0
        finally:
            self._end_all()

    def _tend(self, seat: Seat) -> None:
        if seat.process is None:
            if not seat.is_out_of_service and time.monotonic() >= seat.restart_at:
                self._start_unless_drained(seat)
            return
        code = seat.process.poll()
        if code is None:
            return
        if code in _GENTLE_ENDS and self._is_draining(seat):
            self._let_go(seat)
            return
        self._bury(seat, code)
        if not seat.is_out_of_service:
            wait_seconds = max(0.0, seat.restart_at - time.monotonic())
            log.error("worker on %s ended with %d; a fresh one starts in %.0f s", seat.device, code, wait_seconds)

    def _start_unless_drained(self, seat: Seat) -> None:
        if self._is_draining(seat):
            if not seat.is_drained:
                log.warning("%s is drained: no worker starts on it until that is taken back", seat.device)
            seat.vacate(_DRAINED_LOOK_SECONDS)
        else:
            seat.is_drained = False
            self._start(seat)

    def _is_draining(self, seat: Seat) -> bool:
        """What the ledger said last, where it does not answer."""
        if not seat.worker_id:
            return False
        try:
            return is_draining(self._database, seat.worker_id)
        except UnavailableError as error:
            log.warning("%s", error)
            return seat.is_drained

    def _start(self, seat: Seat) -> None:
        seat.worker_id, seat.started_at = uuid.uuid4().hex, time.monotonic()
        command = [sys.executable, "-P", "-m", "worker.device_process.process", "--worker-id", seat.worker_id]
        command += ["--pair", seat.pair, "--device", seat.device.name, "--name", str(seat.device)]
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which stops its workers gently.
        environment = {**_ENVIRONMENT, **os.environ, **seat.device.environment, **self._environment}
        seat.process = subprocess.Popen(tethered(command), env=environment, start_new_session=True)

    def _bury(self, seat: Seat, code: int) -> None:
        seat.empty(code)
        try:
            cannot_start = seat.note_start(code, was_ready=was_ready(self._database, seat.worker_id))
            death = bury(self._database, seat.worker_id, code, self._settings.max_attempts)
            said = last_words(self._database, seat.worker_id) or f"the process ended with {code}"
            if cannot_start:
                self._say_out_of_service(seat, code, said)
            elif seat.note_death(code, death):
                self._take_out_of_service(seat, said)
        except UnavailableError as error:
            log.warning("%s; the lease of its pack will run out instead", error)

    def _say_out_of_service(self, seat: Seat, code: int, said: str) -> None:
        """Not where the process has said it and ours end with it: then its own sentence stands last in the log."""
        if code not in _HAVE_SPOKEN or not all(other.is_out_of_service for other in self.seats):
            log.error("%s is out of service: its worker cannot start, because %s", seat.device, said)

    def _take_out_of_service(self, seat: Seat, said: str) -> None:
        sentence = (
            f"{seat.device} is out of service: it failed three packs in a row, the last one because {said};"
            " mend the device, then start the worker again"
        )
        log.error("%s", sentence)
        note_worker(self._database, seat.worker_id, "failed", sentence)

    def _end_all(self) -> None:
        seats = [seat for seat in self.seats if seat.process is not None and seat.process.poll() is None]
        _signal(seats)
        # A process counts its own seconds; this deadline is for one that cannot.
        if not _have_ended(seats, self._settings.stop_seconds + KILL_SECONDS, self._hurry):
            if self._hurry.is_set():
                _signal(seats)
                _have_ended(seats, KILL_SECONDS)
            for seat in seats:
                _running(seat).kill()
        for seat in seats:
            _running(seat).wait()
            self._let_go(seat)

    def _let_go(self, seat: Seat) -> None:
        """It ended because we wanted it, so nothing that it held is suspected of its death."""
        seat.process = None
        try:
            ledger.expire_leases(self._database, self._settings.max_attempts, seat.worker_id, blames=False)
            note_worker(self._database, seat.worker_id, "stopped")
        except UnavailableError as error:
            log.warning("%s; the lease of its pack will run out instead", error)


def _signal(seats: Sequence[Seat]) -> None:
    for seat in seats:
        _running(seat).send_signal(signal.SIGTERM)


def _have_ended(seats: Sequence[Seat], seconds: float, hurry: Event | None = None) -> bool:
    """Waits for the processes of all; False when that took too long, or there is hurry."""
    deadline = time.monotonic() + seconds
    while any(_running(seat).poll() is None for seat in seats):
        if time.monotonic() > deadline or (hurry is not None and hurry.is_set()):
            return False
        time.sleep(_POLL_SECONDS)
    return True


def _running(seat: Seat) -> "subprocess.Popen[bytes]":
    assert seat.process is not None
    return seat.process
