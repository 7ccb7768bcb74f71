"""The servers that tests ask for by name. Each is started when the first test wants it, and ended with the session.

How long hypothesis looks for inputs that break a reader is said by ``HYPOTHESIS_PROFILE``: ``ci`` tries the same few
each time, ``long`` some thousands of others each time, and keeps what broke something in ``.hypothesis``.
"""

import gc
import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.children import ForkServer
from tests.distribution import ByFile, groups_first
from tests.ledgers import PostgresLedgers
from tests.servers import PostgresServer, RedisServer, S3Server, temporary_folder

# What a shell starts in the background is deaf to Ctrl-C, and so would be the processes to which tests send one.
signal.signal(signal.SIGINT, signal.default_int_handler)

gc.disable()  # torch and diffusers make a million objects that stay: looking at them again and again takes seconds


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What libraries warn of on a GPU is their own, and another on each kind: there it is shown, and no error."""
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.filterwarnings("default"))
    groups_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile | None:
    if config.getvalue("dist") != "loadgroup":
        return None
    config.option.loadscopereorder = False  # else by how many tests they have, however long those take
    return ByFile(config, log)


settings.register_profile(
    "ci", derandomize=True, database=None, deadline=None, max_examples=60, suppress_health_check=list(HealthCheck)
)
settings.register_profile("long", deadline=None, max_examples=5_000, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pair, made once for everybody, by whoever comes first: processes may make one beside each other."""
    mine = tmp_path_factory.getbasetemp()
    folder = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "models"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def processes() -> BaseContext:
    """Their like are forked from one that has imported what they need, without torch: a start takes milliseconds."""
    found = multiprocessing.get_context("forkserver")
    modules = ["pyarrow.parquet", "tests.unit.export_farm", "tests.unit.read_apart"]
    found.set_forkserver_preload([*modules, "tests.integration.dying_dispatcher"])
    return found


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Where processes of Nightshift come from in tests that are not about how they start. ``wait`` before it forks."""
    with temporary_folder() as folder, ForkServer(folder) as forks:
        yield forks


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with temporary_folder() as folder:
        server = PostgresServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_ledgers(postgres_server: PostgresServer) -> Iterator[PostgresLedgers]:
    with closing(PostgresLedgers(postgres_server)) as ledgers:
        yield ledgers


@pytest.fixture
def postgres_url(postgres_ledgers: PostgresLedgers) -> Iterator[str]:
    """A ledger without rows."""
    with postgres_ledgers.one() as url:
        yield url


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database without tables. It takes ten times as long."""
    with postgres_server.new_database() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The test runs once on each database: `make_tables` makes of either a ledger without rows."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """For everybody: a test that stops or kills a Redis starts a RedisServer of its own."""
    with temporary_folder() as folder:
        server = RedisServer(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    with temporary_folder() as folder:
        server = S3Server(folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
