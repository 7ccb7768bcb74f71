"""The migrations, on a real SQLite and a real PostgreSQL."""

import re
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Inspector, StaticPool, create_engine, inspect, text, update
from typer.testing import CliRunner

import farm.schema
import nightshift
from farm import ledger
from farm.database import Database
from farm.schema import current_revision, ensure_schema, head_revision, upgrade
from farm.workers import WorkerIdentity, note_seen, register_worker
from producer.dispatching.schedule_queries import schedules
from producer.questions.queries import batch_summaries
from schemas.errors import DatabaseUnavailableError, SchemaVersionError, SettingsError, StorageError
from schemas.tables import Pack, Table
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
        columns = "id, host, process_id, device, pair, state, started_at, seen_at"
        values = "'w', 'host', 1, 'cpu', 'tiny', 'ready', '2026-11-21 22:00:00', '2026-11-21 22:00:00'"
        tx.execute(text(f"INSERT INTO workers ({columns}) VALUES ({values})"))
    batch_id, worker_id = open_batch(database, 4), "w"
    held = claimed_pack(database, batch_id, worker_id, 2)
    with database.begin() as tx:  # as that version wrote them
        tx.execute(text("UPDATE jobs SET state = 'running' WHERE pack_id IS NOT NULL"))
        tx.execute(text("UPDATE packs SET lease_expires_at = '2026-01-01 00:00:00'"))  # the farm has been stopped
    upgrade(database)
    assert states(database, batch_id) == {"running": 2, "pending": 2}
    ledger.finish_jobs(database, held, ENVIRONMENT, images_of(held))
    claimed_pack(database, batch_id, worker_id, 2)
    assert states(database, batch_id) == {"done": 2, "running": 2}


def test_a_farm_that_runs_goes_on_in_a_ledger_of_a_newer_version_and_no_process_of_it_starts(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As docs/operations.md promises for an upgrade without stopping."""
    upgrade(database)
    batch_id, worker_id = open_batch(database, 6), new_worker(database)
    held = claimed_pack(database, batch_id, worker_id, 2)
    with database.begin() as tx:
        for table in Table.metadata.tables:
            tx.execute(text(f"ALTER TABLE {table} ADD COLUMN of_a_later_version TEXT"))
        tx.execute(text("CREATE TABLE of_a_later_version (id INTEGER PRIMARY KEY)"))
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    ledger.finish_jobs(database, held, ENVIRONMENT, images_of(held))
    claimed_pack(database, batch_id, worker_id, 2)
    assert ledger.expire_leases(database, 3, worker_id) == 1
    register_worker(database, WorkerIdentity("e" * 32, "host", 1, "cpu", "tiny"))
    assert note_seen(database, "e" * 32, {"memory_used_bytes": 1}) is False
    ledger.finish_jobs(database, held := claimed_pack(database, batch_id, "e" * 32, 1), ENVIRONMENT, images_of(held))
    open_batch(database, 2)
    assert states(database, batch_id) == {"done": 3, "pending": 3}
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setenv("NIGHTSHIFT_HOME", str(tmp_path))
    for hooks in (sys, threading):  # which commands that log set
        monkeypatch.setattr(hooks, "excepthook", hooks.excepthook)
    for command_name in ("worker", "dispatcher", "web"):
        done = CliRunner().invoke(nightshift.app, [command_name])
        assert isinstance(done.exception, SchemaVersionError), done.output
        assert re.search(
            r"^the ledger \S+ is of a newer version \(9999\) than this Nightshift \(\d+\); update Nightshift on this"
            r" machine$", str(done.exception),
        )  # fmt: skip


#: table → column → all that is known of it; the rules that may refuse a row stand beside them
Shape = tuple[dict[str, dict[str, Any]], dict[str, set[str]]]


def shape(connection: Connection) -> Shape:
    found = inspect(connection)
    tables = found.get_table_names()
    columns = {table: {column["name"]: column for column in found.get_columns(table)} for table in tables}
    return columns, {table: _rules(found, table) for table in tables}


def _rules(found: Inspector, table: str) -> set[str]:
    unique = [index["name"] for index in found.get_indexes(table) if index["unique"]]
    constraints = [*found.get_unique_constraints(table), *found.get_check_constraints(table)]
    keys = [",".join(key["constrained_columns"]) for key in found.get_foreign_keys(table)]
    return {*map(str, unique), *(str(one["name"]) for one in constraints), *keys}


def broken(before: Shape, after: Shape) -> list[str]:
    """What was changed or taken away, and what refuses the rows of who does not know of it."""
    wrong = []
    for table, columns in before[0].items():
        now = after[0].get(table, {})
        wrong += [f"{table}.{name}" for name, column in columns.items() if str(now.get(name)) != str(column)]
        new = [column for name, column in now.items() if name not in columns]
        wrong += [f"{table}.{column['name']}" for column in new if not column["nullable"] and not column["default"]]
        wrong += sorted(after[1].get(table, set()) - before[1][table])
    return wrong


def test_each_migration_only_adds_so_that_a_farm_of_the_version_before_goes_on() -> None:
    """Or it says that it wants a stopped one."""
    config = Config()
    config.set_main_option("script_location", str(Path(farm.schema.__file__).parent / "migrations"))
    revisions = [*ScriptDirectory.from_config(config).walk_revisions()][::-1]
    found = {}
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with engine.begin() as connection, Operations.context(MigrationContext.configure(connection)):
        before = shape(connection)
        for revision in revisions:
            revision.module.upgrade()
            after = shape(connection)
            if not getattr(revision.module, "WANTS_A_STOPPED_FARM", False):
                found[revision.revision] = broken(before, after)
            before = after
    engine.dispose()
    assert len(revisions) >= 10
    assert {revision: wrong for revision, wrong in found.items() if wrong} == {}


@pytest.fixture
def ledger_of_today(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Database:
    """And there is a version after this one, whose migration changes what rows mean."""
    upgrade(database)
    folder = tmp_path / "migrations"
    shutil.copytree(Path(farm.schema.__file__).parent / "migrations", folder)
    head = head_revision()
    (folder / "versions" / "9998_another_meaning.py").write_text(
        f"revision, down_revision, WANTS_A_STOPPED_FARM = '9998', '{head}', True\n\n\ndef upgrade(): pass\n"
    )
    monkeypatch.setattr(farm.schema, "_MIGRATIONS", folder)
    return database


def test_a_migration_that_changes_what_rows_mean_waits_until_nobody_holds_a_pack(ledger_of_today: Database) -> None:
    database, today = ledger_of_today, current_revision(ledger_of_today)
    held = claimed_pack(database, open_batch(database, 2), new_worker(database), 2)
    with pytest.raises(SchemaVersionError, match=r"hold packs of the ledger .+ \(1\).+: stop workers and dispatchers"):
        upgrade(database)
    assert current_revision(database) == today
    ledger.finish_jobs(database, held, ENVIRONMENT, images_of(held))
    assert upgrade(database) == current_revision(database) == "9998"


def test_the_pack_of_a_worker_that_died_long_ago_is_nobodys(ledger_of_today: Database) -> None:
    database = ledger_of_today
    held = claimed_pack(database, open_batch(database, 2), new_worker(database), 2)
    with database.begin() as tx:
        tx.execute(update(Pack).where(Pack.id == held.id).values(lease_expires_at=tx.now - timedelta(seconds=1)))
    assert upgrade(database) == "9998"


def test_a_ledger_of_a_newer_version_is_not_upgraded(database: Database) -> None:
    upgrade(database)
    with database.begin() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaVersionError, match=r"newer version \(9999\).+update Nightshift"):
        upgrade(database)


def test_an_upgrade_does_not_hold_up_a_farm_behind_a_backup(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump keeps each table from being changed, and whoever came after an upgrade that waits would wait, too."""
    monkeypatch.setattr(farm.schema, "_LOCK_SECONDS", 0.05)
    with closing(Database(postgres_url)) as database:
        upgrade(database)
        with database.begin() as tx:
            tx.execute(text("ALTER TABLE workers DROP COLUMN reading"))
            tx.execute(text("UPDATE alembic_version SET version_num = '0009'"))
        with closing(Database(postgres_url)) as backup, backup.begin() as tx:
            tx.execute(text("LOCK TABLE workers IN ACCESS SHARE MODE"))
            with pytest.raises(DatabaseUnavailableError, match=r"by pg_dump perhaps, .+ nothing was changed"):
                upgrade(database)
        assert current_revision(database) == "0009"


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
