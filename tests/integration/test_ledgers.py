"""The ledgers that tests are given have been others' before: nothing of them may be left."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import func, select, text

from farm.database import Database
from farm.schema import current_revision, head_revision
from schemas.errors import DatabaseUnavailableError
from schemas.tables import Table
from tests.integration.ledger_farm import claimed_pack, new_ledger, new_worker, open_batch
from tests.ledgers import PostgresLedgers
from tests.servers import PostgresServer


@pytest.fixture(scope="module")
def ledgers(postgres_server: PostgresServer) -> Iterator[PostgresLedgers]:
    with closing(PostgresLedgers(postgres_server)) as ledgers:
        yield ledgers


def num_rows(database: Database) -> int:
    with database.begin(read_only=True) as tx:
        counts = [tx.execute(select(func.count()).select_from(table)) for table in Table.metadata.tables.values()]
        return sum(count.scalar_one() for count in counts)


def use(url: str) -> None:
    """Leaves rows in several tables."""
    with closing(new_ledger(url)) as database:
        claimed_pack(database, open_batch(database), new_worker(database))
        assert num_rows(database) > 0


def test_a_ledger_that_was_used_has_no_rows_and_counts_from_one(ledgers: PostgresLedgers) -> None:
    with ledgers.one() as first:
        use(first)
    with ledgers.one() as second, closing(new_ledger(second)) as database:
        assert second == first
        assert num_rows(database) == 0
        assert open_batch(database) == 1


def test_two_at_once_are_two(ledgers: PostgresLedgers) -> None:
    with ledgers.one() as one, ledgers.one() as other:
        assert one != other


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE strange (id INTEGER)",
        "ALTER TABLE firings RENAME TO strange",
        "UPDATE alembic_version SET version_num = '9999'",
    ],
)
def test_a_ledger_whose_tables_were_changed_is_given_to_nobody(ledgers: PostgresLedgers, change: str) -> None:
    with ledgers.one() as changed, closing(Database(changed)) as database, database.begin() as tx:
        tx.execute(text(change))
    with ledgers.one() as next_one, closing(Database(next_one)) as database:
        assert next_one != changed
        assert current_revision(database) == head_revision()


def write(url: str, goes_on: Event) -> None:
    with closing(Database(url)) as database, database.begin() as tx:
        tx.execute(text("UPDATE jobs SET state = 'failed'"))
        goes_on.wait()
        tx.execute(text("UPDATE jobs SET state = 'failed'"))


def test_who_still_writes_when_its_test_has_ended_is_cut_off(ledgers: PostgresLedgers) -> None:
    goes_on = Event()
    with ThreadPoolExecutor(1) as pool:
        with ledgers.one() as first:
            use(first)
            writing = pool.submit(write, first, goes_on)
            while not writers(first):
                time.sleep(0.01)
        with ledgers.one() as second, closing(Database(second)) as database:
            assert second == first
            assert num_rows(database) == 0
        goes_on.set()
        with pytest.raises(DatabaseUnavailableError):
            writing.result()


def writers(url: str) -> int:
    """Sessions that have written and not committed."""
    with closing(Database(url)) as database, database.begin(read_only=True) as tx:
        found = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_xid IS NOT NULL"
        return int(tx.execute(text(found)).scalar_one())


def test_a_fresh_file_has_the_tables_and_is_nobody_elses(tmp_path: Path) -> None:
    use(f"sqlite:///{tmp_path / 'one.sqlite3'}")
    with closing(new_ledger(f"sqlite:///{tmp_path / 'other.sqlite3'}")) as database:
        assert current_revision(database) == head_revision()
        assert num_rows(database) == 0
        assert open_batch(database) == 1
