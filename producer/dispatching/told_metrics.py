"""A dispatcher that tells Prometheus of itself, where the settings ask for that."""

from collections.abc import Iterator
from contextlib import contextmanager

from farm.database import Database
from producer.dispatching.dispatcher import Note, note_nothing
from schemas.settings import Settings


@contextmanager
def told_metrics(database: Database, settings: Settings) -> Iterator[Note]:
    """What ``Dispatcher.run`` is to tell of its ticks; to nobody where none asks (``metrics_port`` 0).

    Raises:
        SettingsError: the port is taken.
    """
    if not settings.metrics_port:
        yield note_nothing
        return
    # a third of a second, for those who asked
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from farm.metrics_server import served  # noqa: PLC0415
    from producer.dispatching.metrics import DispatcherMetrics, FarmCollector  # noqa: PLC0415

    registry = CollectorRegistry()
    registry.register(FarmCollector(database, settings))
    with served(registry, settings.metrics_host, settings.metrics_port):
        yield DispatcherMetrics(registry).note
