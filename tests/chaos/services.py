"""What every run of a session shares: the fork server, PostgreSQL, the tiny pair's files, the reference's pixels."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.children import ForkServer
from tests.chaos.fork_server import Request
from tests.chaos.reference import Reference
from tests.servers import PostgresServer, temporary_folder


@dataclass(frozen=True)
class Services:
    """Started once; each run has a database and a Redis of its own."""

    forks: ForkServer
    postgres: PostgresServer
    cache: Path
    reference: Reference


@contextmanager
def services() -> Iterator[Services]:
    with temporary_folder() as folder, temporary_folder() as postgres_folder, ForkServer(folder) as forks:
        postgres = PostgresServer(postgres_folder)
        try:
            postgres.start()  # while the fork server imports
            forks.wait()
            yield Services(forks, postgres, folder / "cache", _reference(forks, folder))
        finally:
            postgres.stop()


def plain_environment() -> dict[str, str]:
    """This process's, without settings of a farm."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NIGHTSHIFT_", "CHAOS_"))}
    return {**kept, "TRANSFORMERS_VERBOSITY": "error"}


def _reference(forks: ForkServer, folder: Path) -> Reference:
    """Rendered while the first runs go on."""
    answer = folder / "reference.txt"
    environment = {**plain_environment(), "NIGHTSHIFT_HOME": str(folder), "CHAOS_REFERENCE": str(answer)}
    child = forks.fork(Request("tests.chaos.reference", [], environment, str(folder / "reference.log")))
    return Reference(answer, lambda: child.poll() is None)
