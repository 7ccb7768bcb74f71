"""What a worker process notes of its packs, and where it goes: to nobody, or to Prometheus."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Literal

from schemas.settings import Settings

#: prometheus_client's: the folder in which the processes of a host count. Set by their supervisor
FOLDER_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
#: claimed and read; until the device has time; its forward passes; watermark, encoding and storing; into the ledger
Stage = Literal["prepare", "wait", "render", "finish", "record"]


class WorkerMetrics:
    """Where nobody asks, nothing is noted (``worker.device_process.prometheus`` for who does). Threads share it."""

    def images(self, num_images: int) -> None:
        """So many more are recorded."""

    def failed(self, code: str, num_jobs: int) -> None:
        """A try of each of these jobs ended with this error."""

    def given_back(self, num_jobs: int) -> None:
        """They wait again, and no try of them is counted."""

    def lease_lost(self) -> None:
        """A pack in hand was taken back, or its batch canceled."""

    def pack_seconds(self, seconds: Mapping[Stage, float]) -> None:
        """How long a pack was in each stage that it came to."""


def worker_metrics(settings: Settings, pair: str, device: str) -> WorkerMetrics:
    """For one worker process. ``device``: its name on this host."""
    if not settings.worker_metrics_port:
        return WorkerMetrics()
    # a third of a second, for those who asked
    from worker.device_process.prometheus import PrometheusMetrics  # noqa: PLC0415

    return PrometheusMetrics(pair, device)


class PackTimes:
    """How long one pack has been in each stage, so far."""

    def __init__(self) -> None:
        self.seconds: dict[Stage, float] = {}
        self._submitted = 0.0

    def add(self, stage: Stage, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        """One that ends with an error counts, too."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(stage, time.monotonic() - started)

    def submitted(self) -> None:
        """From now on it waits for the device."""
        self._submitted = time.monotonic()

    def begun(self) -> None:
        """On the device thread: its turn has come."""
        self.add("wait", time.monotonic() - self._submitted)
