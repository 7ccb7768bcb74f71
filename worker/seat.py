"""A device and the process that serves it now: when it may start again after a death, and when no more."""

import subprocess
import time
from dataclasses import dataclass, field
from typing import Final

from worker.device_health import Death, is_unfit
from worker.devices import Device
from worker.exit_codes import EXIT_DEAF, EXIT_DEVICE_LOST, EXIT_HUNG

_FIRST_BACKOFF_SECONDS: Final = 1.0
_MAX_BACKOFF_SECONDS: Final = 60.0
#: A process that ran this long before it died starts the backoff anew.
_HEALTHY_SECONDS: Final = 60.0
#: Deaths in a row before a process was ready, after which starting again is no use.
_MAX_FAILED_STARTS: Final = 3


@dataclass
class Seat:
    """``worker_id``: of the process that serves it, or did last."""

    device: Device
    process: "subprocess.Popen[bytes] | None" = None
    worker_id: str = ""
    started_at: float = 0.0
    restart_at: float = 0.0
    failed_starts: int = 0
    backoff_seconds: float = _FIRST_BACKOFF_SECONDS
    is_out_of_service: bool = False
    #: of its device, since a process of it recorded an image
    deaths: list[Death] = field(default_factory=list)

    @property
    def has_failed_to_start(self) -> bool:
        return self.failed_starts >= _MAX_FAILED_STARTS

    def empty(self, code: int) -> None:
        """The process ended with this code; another may start after a while, in place of a deaf one at once."""
        self.process = None
        now = time.monotonic()
        if code == EXIT_DEAF:
            self.restart_at = now
            return
        if now - self.started_at >= _HEALTHY_SECONDS:
            self.backoff_seconds = _FIRST_BACKOFF_SECONDS
        else:
            self.backoff_seconds = min(self.backoff_seconds * 2, _MAX_BACKOFF_SECONDS)
        self.restart_at = now + self.backoff_seconds

    def note_death(self, code: int, death: Death) -> bool:
        """Whether the device is to blame, and goes out of service with this death."""
        if death.had_rendered:
            self.deaths.clear()
        if code in (EXIT_DEVICE_LOST, EXIT_HUNG):
            self.deaths.append(death)
        self.is_out_of_service = is_unfit(self.deaths)
        return self.is_out_of_service
