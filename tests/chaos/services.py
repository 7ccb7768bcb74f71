"""What every run of a session shares: the fork server, PostgreSQL, the tiny pair's files, the reference's pixels."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.reference import Reference
from tests.children import ForkServer
from tests.fork_server import Request
from tests.servers import PostgresServer, temporary_folder

#: what puts the crash points round the product's functions in each process
LAUNCH = "tests.chaos.launch"


@dataclass(frozen=True)
class Services:
    """Started once; each run has a database and a Redis of its own."""

    forks: ForkServer
    postgres: PostgresServer
    cache: Path
    reference: Reference


@contextmanager
def services(forks: ForkServer, cache: Path) -> Iterator[Services]:
    """``cache``: where the tiny pair's files are, or will be."""
    with temporary_folder() as folder, temporary_folder() as postgres_folder:
        postgres = PostgresServer(postgres_folder)
        try:
            postgres.start()  # while the fork server imports
            forks.wait()
            (folder / "cache").symlink_to(cache)
            yield Services(forks, postgres, cache, _reference(forks, folder))
        finally:
            postgres.stop()


def chaos_request(entry: str, arguments: Sequence[str], environment: dict[str, str], log: Path) -> Request:
    """A process of a farm under test."""
    home = environment["NIGHTSHIFT_HOME"]
    return Request(entry, list(arguments), environment, home, str(log), str(log), LAUNCH)


def plain_environment() -> dict[str, str]:
    """This process's, without settings of a farm."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NIGHTSHIFT_", "CHAOS_"))}
    return {**kept, "TRANSFORMERS_VERBOSITY": "error"}


def _reference(forks: ForkServer, folder: Path) -> Reference:
    """Rendered while the first runs go on."""
    answer = folder / "reference.txt"
    environment = {**plain_environment(), "NIGHTSHIFT_HOME": str(folder), "CHAOS_REFERENCE": str(answer)}
    child = forks.fork(chaos_request("tests.chaos.reference", [], environment, folder / "reference.log"))
    return Reference(answer, lambda: child.poll() is None)
