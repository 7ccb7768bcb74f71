"""A web process that tells Prometheus of its requests, where the settings ask for that."""

from collections.abc import Iterator
from contextlib import contextmanager

from producer.web.metrics import TOLD_TO_NOBODY, WebMetrics
from schemas.settings import Settings


@contextmanager
def told_metrics(settings: Settings) -> Iterator[WebMetrics]:
    """What requests are noted with; nothing is where none asks (``web_metrics_port`` 0).

    Raises:
        SettingsError: the port is taken.
    """
    if not settings.web_metrics_port:
        yield TOLD_TO_NOBODY
        return
    # a third of a second, for those who asked
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from farm.metrics_server import served  # noqa: PLC0415
    from producer.web.prometheus import PrometheusWebMetrics  # noqa: PLC0415

    registry = CollectorRegistry()
    with served(registry, settings.metrics_host, settings.web_metrics_port):
        yield PrometheusWebMetrics(registry)
