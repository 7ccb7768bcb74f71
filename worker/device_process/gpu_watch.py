"""How this process's GPU is, asked again and again: for the ledger, and so for whoever looks at the farm.

On a thread of its own, which nobody waits for: a driver that hangs must not keep leases from being renewed.
"""

import logging
from datetime import UTC, datetime
from typing import Any, Final

from farm.gpus import GpuReading, read_gpus
from schemas.errors import NightshiftError
from worker.device_process.periodic_thread import PeriodicThread

log = logging.getLogger("nightshift.worker")

_INTERVAL_SECONDS: Final = 5.0


def no_reading() -> None:
    """Of a device that no driver speaks for."""


class GpuWatch(PeriodicThread):
    """``name``: of the GPU, as ``CUDA_VISIBLE_DEVICES`` says it. Says a driver's failure once, and looks again."""

    def __init__(self, name: str) -> None:
        super().__init__("gpu-watch", _INTERVAL_SECONDS)
        self._name = name
        self._failure = ""
        self._last: dict[str, Any] | None = None

    def last(self) -> dict[str, Any] | None:
        """``workers.reading``. While a driver hangs it is the one before, whose time says so."""
        return self._last

    def look(self) -> bool:
        """No more where there is no driver."""
        try:
            found = read_gpus()
        except NightshiftError as error:
            self._say(str(error))
            return True
        reading = next((reading for reading in found.readings if reading.is_named(self._name)), None)
        if reading is not None:
            self._failure, self._last = "", _told(reading)
        elif found.driver_version is not None:
            why = found.failed.get(self._name, "the driver knows none of that name")
            self._say(f"GPU {self._name} does not answer: {why}; nvidia-smi may say more")
        return found.driver_version is not None

    def _say(self, failure: str) -> None:
        self._last = None
        if failure != self._failure:
            log.warning("%s", failure)
        self._failure = failure


def _told(reading: GpuReading) -> dict[str, Any]:
    return {
        "memory_used_bytes": reading.memory_used_bytes,
        "memory_total_bytes": reading.memory_total_bytes,
        "utilisation": reading.utilisation,
        "temperature_celsius": reading.temperature_celsius,
        "power_watts": reading.power_watts,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
