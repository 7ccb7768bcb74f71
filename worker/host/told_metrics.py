"""A supervisor that tells Prometheus of its host, where the settings ask for that."""

from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

from schemas.settings import Settings
from worker.device_process.metrics import FOLDER_VARIABLE
from worker.host.health import Health


@contextmanager
def counting_environment(settings: Settings) -> Iterator[dict[str, str]]:
    """What worker processes need in their environment to count where this process finds it; nothing where none asks
    (``worker_metrics_port`` 0)."""
    if not settings.worker_metrics_port:
        yield {}
        return
    with TemporaryDirectory(prefix="nightshift-metrics-", ignore_cleanup_errors=True) as folder:
        yield {FOLDER_VARIABLE: folder}


@contextmanager
def told_metrics(health: Health, settings: Settings, environment: dict[str, str]) -> Iterator[None]:
    """Serves what the processes of this environment count.

    Raises:
        SettingsError: the port is taken.
    """
    if not environment:
        yield
        return
    # a third of a second, for those who asked
    from worker.host.host_metrics import serving  # noqa: PLC0415

    with serving(health, settings, environment[FOLDER_VARIABLE]):
        yield
