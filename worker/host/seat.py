"""A device and the process that serves it now: when it may start again after a death, and when no more."""

import subprocess
import time
from dataclasses import dataclass, field
from typing import Final

from schemas.errors import InputError, UnavailableError
from worker.host.device_health import Death, is_unfit
from worker.host.devices import Device
from worker.host.exit_codes import EXIT_DEAF, EXIT_DEVICE_LOST, EXIT_HUNG, EXIT_OUT_OF_SERVICE

_FIRST_BACKOFF_SECONDS: Final = 1.0
_MAX_BACKOFF_SECONDS: Final = 60.0
#: A process that ran this long before it died starts the backoff anew.
_HEALTHY_SECONDS: Final = 60.0
#: Deaths in a row before a process was ready, after which starting again is no use.
_MAX_FAILED_STARTS: Final = 3


@dataclass
class Seat:
    """``worker_id``: of the process that serves it, or did last. ``has_served``: one of its processes got ready.
    ``final_code``: what the supervisor says of a device that is out of service, when no other is left.
    ``is_drained``: nothing starts here until the operator takes that back.
    """

    device: Device
    pair: str
    process: "subprocess.Popen[bytes] | None" = None
    worker_id: str = ""
    started_at: float = 0.0
    restart_at: float = 0.0
    failed_starts: int = 0
    backoff_seconds: float = _FIRST_BACKOFF_SECONDS
    num_deaths: int = 0
    has_served: bool = False
    is_drained: bool = False
    final_code: int | None = None
    #: of its device, since a process of it recorded an image
    deaths: list[Death] = field(default_factory=list)

    @property
    def is_out_of_service(self) -> bool:
        return self.final_code is not None

    def empty(self, code: int) -> None:
        """The process ended with this code; another may start after a while, in place of a deaf one at once."""
        self.process = None
        self.num_deaths += 1
        now = time.monotonic()
        if code == EXIT_DEAF:
            self.restart_at = now
            return
        if now - self.started_at >= _HEALTHY_SECONDS:
            self.backoff_seconds = _FIRST_BACKOFF_SECONDS
        else:
            self.backoff_seconds = min(self.backoff_seconds * 2, _MAX_BACKOFF_SECONDS)
        self.restart_at = now + self.backoff_seconds

    def vacate(self, seconds: float) -> None:
        """The operator drained it: nothing starts for so long."""
        self.process, self.is_drained = None, True
        self.restart_at = time.monotonic() + seconds

    def note_start(self, code: int, *, was_ready: bool) -> bool:
        """Of a process that ended with this code. Whether starting again is no use: the device goes out of service.

        A pair that does not load at first loads no better the second time. Where one has been loaded here, its files
        may be back after a while; and a ledger or store that was there once is waited for.
        """
        if was_ready:
            self.has_served, self.failed_starts = True, 0
            return False
        if code == UnavailableError.exit_code and self.has_served:
            return False
        self.failed_starts += 1
        if self.failed_starts >= _MAX_FAILED_STARTS or (code == InputError.exit_code and not self.has_served):
            self.final_code = max(code, 1)
        return self.is_out_of_service

    def note_death(self, code: int, death: Death) -> bool:
        """Whether the device is to blame, and goes out of service with this death."""
        if death.had_rendered:
            self.deaths.clear()
        if code in (EXIT_DEVICE_LOST, EXIT_HUNG):
            self.deaths.append(death)
        is_to_blame = is_unfit(self.deaths)
        if is_to_blame:
            self.final_code = EXIT_OUT_OF_SERVICE
        return is_to_blame
