"""What the web process notes, in Prometheus' client. Not imported before that is asked for (``web_metrics_port``)."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from producer.web.metrics import Answered, WebMetrics


class PrometheusWebMetrics(WebMetrics):
    """Of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"nightshift_web_{name}", text, labels, registry=registry)

        self._requests = counter("requests_total", "requests that were answered", "route", "method", "status")
        self._refusals = counter("refusals_total", "requests that were answered with a problem, by its code", "reason")
        self._jobs = counter("jobs_submitted_total", "jobs of batches that were submitted over HTTP")
        self._seconds = Histogram("nightshift_web_request_seconds", "until the answer to a request began",
                                  ("route", "method"), registry=registry)  # fmt: skip
        self._streams = Gauge("nightshift_web_event_streams", "streams of events that are open", registry=registry)

    def answered(self, answered: Answered) -> None:
        route, method, status, seconds = answered
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, method).observe(seconds)

    def refused(self, reason: str) -> None:
        self._refusals.labels(reason).inc()

    def submitted(self, num_jobs: int) -> None:
        self._jobs.inc(num_jobs)

    @contextmanager
    def event_stream(self) -> Iterator[None]:
        with self._streams.track_inprogress():
            yield
