"""What Prometheus may ask a host: what its worker processes counted, how they are, and how its GPUs are.

Served by the supervisor (setting ``worker_metrics_port``); nothing of it is imported before that is asked for.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Lock

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from farm.gpus import GpuReading, Gpus, read_gpus
from farm.metrics_server import served
from schemas.errors import NightshiftError, UnavailableError
from schemas.settings import Settings
from worker.host.health import Health
from worker.host.seat import Seat

log = logging.getLogger("nightshift.supervisor")


@contextmanager
def serving(health: Health, settings: Settings, folder: str) -> Iterator[int]:
    """Serves ``/metrics``; ``folder``: where the worker processes count. Yields the port.

    Raises:
        SettingsError: the port is taken.
    """
    with served(registry(health, folder), settings.metrics_host, settings.worker_metrics_port) as port:
        yield port


def registry(health: Health, folder: str, read: Callable[[], Gpus] = read_gpus) -> CollectorRegistry:
    """All that a host tells."""
    made = CollectorRegistry()
    MultiProcessCollector(made, folder)
    made.register(ProcessCollector(health))
    made.register(GpuCollector(health.supervisor.seats, read))
    return made


class ProcessCollector(Collector):
    """The worker processes. By the supervisor's own knowledge, and the ledger's where that answers."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def describe(self) -> list[Metric]:
        """Nothing, which keeps the registry from asking the ledger when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._of_the_seats()
        try:
            devices = self._health.devices()
        except UnavailableError:
            return
        processes = _gauge("worker_processes", "1 for the state that a device's worker process is in",
                           ("device", "pair", "state"))  # fmt: skip
        for device in devices:
            processes.add_metric((device["device"], device["pair"], device["state"]), 1.0)
        yield processes

    def _of_the_seats(self) -> Iterator[Metric]:
        labels = ("device", "pair")
        restarts = CounterMetricFamily("nightshift_restarts", "worker processes that died", labels=labels)
        out = _gauge("device_out_of_service", "1 for a device that is not tried again", labels)
        for seat in self._health.supervisor.seats:
            restarts.add_metric((str(seat.device), seat.pair), seat.num_deaths)
            out.add_metric((str(seat.device), seat.pair), float(seat.is_out_of_service))
        yield restarts
        yield out


class GpuCollector(Collector):
    """The host's GPUs, read while somebody waits for the answer. Where there is no driver it tells nothing.

    A driver that hangs holds up the one who asked first. Whoever asks meanwhile is told all but this.
    """

    def __init__(self, seats: Iterable[Seat], read: Callable[[], Gpus]) -> None:
        self._seats = tuple(seats)
        self._read = read
        self._lock = Lock()

    def describe(self) -> list[Metric]:
        """Nothing: else the registry would ask the driver, which may hang, when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        if not self._lock.acquire(blocking=False):
            yield _driver_up(is_up=False)
            return
        try:
            yield from self._families()
        finally:
            self._lock.release()

    def _families(self) -> list[Metric]:
        try:
            found = self._read()
        except NightshiftError as error:
            log.warning("%s", error)
            return [_driver_up(is_up=False)]
        if found.driver_version is None:
            return []
        return [_driver_up(is_up=True), self._failed(found.failed), *self._told(found.readings)]

    def _failed(self, indices: Iterable[str]) -> GaugeMetricFamily:
        family = _gauge("gpu_failed", "1 for a GPU that the driver knows and that does not answer", ("device",))
        for index in indices:
            family.add_metric((f"cuda:{index}",), 1.0)
        return family

    def _told(self, readings: Iterable[GpuReading]) -> list[Metric]:
        families = {
            "memory_used_bytes": _gauge("gpu_memory_used_bytes", "memory that is taken", ("device",)),
            "memory_total_bytes": _gauge("gpu_memory_total_bytes", "memory that the GPU has", ("device",)),
            "utilisation": _gauge("gpu_utilisation", "share of the last moments in which a kernel ran", ("device",)),
            "temperature_celsius": _gauge("gpu_temperature_celsius", "of the GPU's core", ("device",)),
            "power_watts": _gauge("gpu_power_watts", "what the GPU draws", ("device",)),
        }
        for reading in readings:
            for name, family in families.items():
                value = getattr(reading, name)
                if value is not None:
                    family.add_metric((self._device(reading),), float(value))
        return list(families.values())

    def _device(self, reading: GpuReading) -> str:
        """As its worker is called, where it has one."""
        named = (str(seat.device) for seat in self._seats if reading.is_named(seat.device.index or ""))
        return next(named, f"cuda:{reading.index}")


def _gauge(name: str, text: str, labels: tuple[str, ...]) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"nightshift_{name}", text, labels=labels)


def _driver_up(*, is_up: bool) -> GaugeMetricFamily:
    return GaugeMetricFamily("nightshift_gpu_driver_up", "1 while the GPUs' driver answers", value=float(is_up))
