"""A ledger for each kind of database, with a clock that the test moves, and an S3 store."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from farm.broker import Broker
from farm.database import Database
from tests.integration.ledger_farm import TestClock, new_ledger
from tests.integration.s3_store import proxy, s3

__all__ = ["proxy", "s3"]


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def database(database_url: str, clock: TestClock) -> Iterator[Database]:
    with closing(new_ledger(database_url, clock)) as database:
        yield database


@pytest.fixture
def on_sqlite(sqlite_url: str, clock: TestClock) -> Iterator[Database]:
    """For what the databases have no part in."""
    with closing(new_ledger(sqlite_url, clock)) as database:
        yield database


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    with closing(Broker(redis_url)) as broker:
        yield broker
