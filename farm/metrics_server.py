"""An HTTP server for Prometheus, in a thread: ``/metrics`` of one registry."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from farm.http_server import running
from schemas.errors import SettingsError


@contextmanager
def served(registry: CollectorRegistry, host: str, port: int) -> Iterator[int]:
    """Serves until left. Yields the port: 0 takes one that is free.

    Raises:
        SettingsError: the port is taken, or the address is none of this machine.
    """
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsError(f"cannot serve metrics at {host}:{port}: {error.strerror or error}") from error
    with running(server, thread) as its_port:
        yield its_port
