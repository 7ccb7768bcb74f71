"""What Prometheus may ask the control plane: how the farm stands, by the ledger, and what this dispatcher did.

Nothing here is imported before metrics are asked for (setting ``metrics_port``).
"""

import time
from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from farm.database import Database
from producer.dispatching.dispatcher import Tick
from producer.dispatching.queue_lengths import QueueLengths
from producer.questions.farm_figures import FarmFigures, farm_figures
from producer.questions.queries import waiting_pairs
from producer.upkeep.pinned_weights import pinned_weights
from schemas.errors import UnavailableError
from schemas.settings import Settings

K = TypeVar("K", bound=tuple[str, ...])

#: Any number of scrapers, impatient ones too, cost the ledger one look in so many seconds.
_FRESH_SECONDS: Final = 5.0


class FarmCollector(Collector):
    """Asks the ledger and Redis when it is scraped. What does not answer is said to be down; the rest is told."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._queues = QueueLengths(settings)
        self._settings = settings
        self._lock = Lock()
        self._told: list[Metric] = []
        self._told_at = float("-inf")

    def describe(self) -> list[Metric]:
        """Nothing, which keeps the registry from asking the ledger when this is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            if time.monotonic() - self._told_at >= _FRESH_SECONDS:
                self._told = [*self._of_ledger_and_redis()]
                self._told_at = time.monotonic()
            yield from self._told

    def _of_ledger_and_redis(self) -> Iterator[Metric]:
        try:
            figures = farm_figures(self._database, self._settings.lease_seconds, self._settings.window)
            pinned = pinned_weights(self._database, self._settings.lease_seconds)
            unserved = waiting_pairs(self._database) - {pair for pair, _ in figures.workers}
        except UnavailableError:
            yield _up("ledger", is_up=False)
            yield from self._of_redis(set())
            return
        yield _up("ledger", is_up=True)
        yield from _families(figures)
        yield _gauge("unserved_pair", "1 for a pair whose jobs wait and that no live worker serves", ("pair",),
                     {(pair,): 1.0 for pair in unserved})  # fmt: skip
        yield _gauge("pair_fingerprints", "different weights or options that live workers have pinned", ("pair",),
                     {(one.pair,): float(len(one.hosts)) for one in pinned})  # fmt: skip
        yield from self._of_redis({pair for pair, _ in (*figures.packs, *figures.workers)})

    def _of_redis(self, pairs: set[str]) -> Iterator[Metric]:
        lengths = self._queues.of(pairs)
        yield _up("redis", is_up=lengths is not None)
        if lengths is not None:
            yield _gauge("queue_messages", "messages that wait in Redis for the pair's workers", ("pair",),
                         {(pair,): float(number) for pair, number in lengths.items()})  # fmt: skip


def _families(figures: FarmFigures) -> Iterator[Metric]:
    jobs = {(state, str(priority)): float(number) for (state, priority), number in figures.jobs.items()}
    oldest = {(str(priority),): seconds for priority, seconds in figures.oldest_pending_seconds.items()}
    yield _gauge("jobs", "jobs by their state and their batch's priority", ("state", "priority"), jobs)
    yield _gauge("batches", "batches by state", ("state",), {(state,): n for state, n in figures.batches.items()})
    yield _gauge("packs", "packs that are queued or running", ("pair", "state"), figures.packs)
    yield _gauge("workers", "worker processes that were seen within a lease", ("pair", "state"), figures.workers)
    yield _gauge("oldest_pending_seconds", "how long the oldest batch with pending jobs may run already",
                 ("priority",), oldest)  # fmt: skip


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[K, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"nightshift_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _up(what: str, *, is_up: bool) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"nightshift_{what}_up", f"1 while the {what} answers", value=float(is_up))


class DispatcherMetrics:
    """What one dispatcher's ticks did since its process began; one that does not hold the lease does nothing."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str) -> Counter:
            return Counter(f"nightshift_{name}", text, registry=registry)

        self._released = counter("packs_released_total", "packs that were released to the workers")
        self._republished = counter("packs_republished_total", "packs whose message was sent again")
        self._expired = counter("lease_expiries_total", "packs whose workers' leases ran out")
        self._canceled = counter("jobs_swept_total", "jobs of canceled batches that were marked so")
        self._seconds = Histogram("nightshift_tick_seconds", "what a tick of the dispatcher took", registry=registry)

    def note(self, tick: Tick, seconds: float) -> None:
        self._released.inc(tick.num_released)
        self._republished.inc(tick.num_republished)
        self._expired.inc(tick.num_expired)
        self._canceled.inc(tick.num_canceled)
        self._seconds.observe(seconds)
