"""A worker process's metrics in Prometheus' client, where its supervisor finds them (``worker.host.host_metrics``).

The client's multiprocess mode: files in ``$PROMETHEUS_MULTIPROC_DIR``, which the supervisor sets. They are named after
the device, not the process as is usual: one that takes a dead one's place counts on from where that ended, and however
often processes die there are no more files than devices.
"""

import os
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from prometheus_client import CollectorRegistry, Counter, Histogram, values

from worker.device_process.metrics import FOLDER_VARIABLE, Stage, WorkerMetrics

#: a record takes milliseconds, a pack of large images minutes
_BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0)


class PrometheusMetrics(WorkerMetrics):
    """Of one process, which has one pair and one device."""

    def __init__(self, pair: str, device: str) -> None:
        if FOLDER_VARIABLE in os.environ:
            values.ValueClass = values.MultiProcessValue(lambda: quote(device, safe=""))
        registry = CollectorRegistry()

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(f"nightshift_{name}", text, ("device", "pair", *more), registry=registry)

        self._of = {"device": device, "pair": pair}
        self._images = counter("images_total", "images that were recorded").labels(**self._of)
        self._failed = counter("failed_tries_total", "tries of jobs that ended with an error", "code")
        self._given_back = counter("jobs_given_back_total", "jobs that wait again, no try counted").labels(**self._of)
        self._lost = counter("leases_lost_total", "packs that were taken back or did not begin").labels(**self._of)
        self._seconds = Histogram("nightshift_pack_seconds", "how long packs were in each stage", ("pair", "stage"),
                                  buckets=_BUCKETS, registry=registry)  # fmt: skip

    def images(self, num_images: int) -> None:
        self._images.inc(num_images)

    def failed(self, code: str, num_jobs: int) -> None:
        self._failed.labels(**self._of, code=code).inc(num_jobs)

    def given_back(self, num_jobs: int) -> None:
        self._given_back.inc(num_jobs)

    def lease_lost(self) -> None:
        self._lost.inc()

    def pack_seconds(self, seconds: Mapping[Stage, float]) -> None:
        for stage, number in seconds.items():
            self._seconds.labels(pair=self._of["pair"], stage=stage).observe(number)
