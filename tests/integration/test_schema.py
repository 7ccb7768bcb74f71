"""The migrations, on a real SQLite and a real PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text

import farm.schema
from farm import ledger
from farm.database import Database
from farm.schema import current_revision, ensure_schema, head_revision, upgrade
from producer.queries import batch_summaries
from producer.schedule_queries import schedules
from schemas.errors import DatabaseUnavailableError, SchemaVersionError, SettingsError, StorageError
from schemas.tables import Table
from tests.integration.ledger_farm import ENVIRONMENT, claimed_pack, images_of, new_worker, open_batch, states


@pytest.fixture
def postgres_url(empty_postgres_url: str) -> str:
    """Without tables, here."""
    return empty_postgres_url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as database:
        yield database


def test_the_migrations_make_exactly_the_tables_of_the_mappings(database: Database) -> None:
    upgrade(database)
    with database.begin(read_only=True) as tx:
        assert compare_metadata(MigrationContext.configure(tx.connection), Table.metadata) == []


def test_the_batches_of_the_version_before_schedules_are_kept(database: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(farm.schema.__file__).parent / "migrations"))
    with database.begin() as tx:
        config.attributes["connection"] = tx.connection
        command.upgrade(config, "0003")
        columns = (
            "name, pair, state, priority, num_pending, num_queued, num_running, num_done, num_failed, num_canceled"
        )
        values = "'cats', 'tiny', 'open', 5, 0, 0, 0, 0, 0, 0, '2026-11-21 22:00:00'"
        tx.execute(text(f"INSERT INTO batches ({columns}, created_at) VALUES ({values})"))
    upgrade(database)
    (batch,) = batch_summaries(database, 9)
    assert (batch.name, batch.origin, schedules(database)) == ("cats", None, [])


def test_the_jobs_of_the_version_before_fewer_entries_go_on(database: Database) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(farm.schema.__file__).parent / "migrations"))
    with database.begin() as tx:
        config.attributes["connection"] = tx.connection
        command.upgrade(config, "0007")
    batch_id, worker_id = open_batch(database, 4), new_worker(database)
    held = claimed_pack(database, batch_id, worker_id, 2)
    with database.begin() as tx:  # as that version wrote them
        tx.execute(text("UPDATE jobs SET state = 'running' WHERE pack_id IS NOT NULL"))
    upgrade(database)
    assert states(database, batch_id) == {"running": 2, "pending": 2}
    ledger.finish_jobs(database, held, ENVIRONMENT, images_of(held))
    claimed_pack(database, batch_id, worker_id, 2)
    assert states(database, batch_id) == {"done": 2, "running": 2}


def test_an_upgrade_may_be_run_again_and_twice_at_once(database: Database) -> None:
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: upgrade(database), range(2))) == [head_revision()] * 2
    upgrade(database)
    assert current_revision(database) == head_revision()


def test_a_fresh_sqlite_file_is_made_by_itself(sqlite_url: str) -> None:
    with closing(Database(sqlite_url)) as database:
        ensure_schema(database)
        assert current_revision(database) == head_revision()


def test_a_fresh_postgresql_wants_to_be_upgraded_on_purpose(postgres_url: str) -> None:
    with closing(Database(postgres_url)) as database, pytest.raises(SchemaVersionError, match="nightshift db upgrade"):
        ensure_schema(database)


def test_a_ledger_of_a_newer_version_is_refused(database: Database) -> None:
    upgrade(database)
    with database.begin() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaVersionError, match="newer version"):
        ensure_schema(database)


def test_a_plain_postgresql_url_uses_the_driver_that_we_have(postgres_url: str) -> None:
    with closing(Database(postgres_url.replace("postgresql+psycopg", "postgresql"))) as database:
        assert current_revision(database) is None


def test_an_unreachable_postgresql_is_said_in_one_sentence_without_its_password() -> None:
    url = "postgresql://somebody:hunter2@127.0.0.1:1/nightshift"
    with closing(Database(url)) as database, pytest.raises(DatabaseUnavailableError) as raised:
        ensure_schema(database)
    assert "does not answer" in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("url", ["mysql://host/db", "not a url", "sqlite://", "sqlite:///:memory:"])
def test_a_url_that_is_no_ledger_is_refused(url: str) -> None:
    with pytest.raises(SettingsError):
        Database(url)


def test_a_sqlite_file_where_no_folder_can_be_made_is_refused() -> None:
    with pytest.raises(StorageError, match="cannot make the folder"):
        Database("sqlite:////proc/nightshift/ledger.sqlite3")
