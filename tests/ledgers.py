"""Ledgers without rows, for a hundredth of what it takes to make one: migrating takes a tenth of a second of this
process, and on PostgreSQL making and dropping a database several tenths of the server's.

SQLite: a copy of a file that was migrated once. PostgreSQL: databases that earlier tests have used, emptied.
"""

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import make_url

from farm.database import Database
from farm.schema import current_revision, upgrade
from tests.servers import PostgresServer

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
_SEQUENCES = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public'"
#: what a test of rows leaves as it was
_SHAPE = """
SELECT (SELECT array_agg(relname::text ORDER BY oid) FROM pg_class WHERE relnamespace = 'public'::regnamespace),
       (SELECT array_agg(tgname::text ORDER BY oid) FROM pg_trigger WHERE NOT tgisinternal),
       (SELECT array_agg(version_num::text) FROM alembic_version)
"""
_OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def make_tables(database: Database) -> None:
    """As ``upgrade`` does, for a SQLite file that is not there yet, and for an empty PostgreSQL."""
    if database.engine.dialect.name == "sqlite":
        file = Path(str(database.engine.url.database))
        if not file.exists():
            file.write_bytes(_migrated_file())
    elif current_revision(database) is None:
        upgrade(database)


@cache
def _migrated_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ledger.sqlite3"
        with closing(Database(f"sqlite:///{file}")) as database:
            upgrade(database)
        assert not file.with_name(f"{file.name}-wal").exists(), "some of it is in another file"
        return file.read_bytes()


class PostgresLedgers:
    """Databases that have their tables, no rows, and counters that begin at 1."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._idle: list[_Ledger] = []

    @contextmanager
    def one(self) -> Iterator[str]:
        """Its URL. Whoever is still connected afterwards is cut off."""
        ledger = self._idle.pop() if self._idle else _Ledger(self._server)
        try:
            yield ledger.url
        finally:
            if ledger.emptied():
                self._idle.append(ledger)
            else:
                ledger.drop()

    def close(self) -> None:
        for ledger in self._idle:
            ledger.drop()


class _Ledger:
    def __init__(self, server: PostgresServer) -> None:
        self._database = server.new_database()
        self.url = self._database.__enter__()
        with closing(Database(self.url)) as database:
            upgrade(database)
        self._connection = psycopg.connect(
            make_url(self.url).set(drivername="postgresql").render_as_string(), autocommit=True
        )
        self._shape = self._ask(_SHAPE)

    def emptied(self) -> bool:
        """False where a test has changed more than rows."""
        self._connection.execute(f"SELECT pg_terminate_backend(pid, 10000) {_OTHERS}")
        if self._ask(_SHAPE) != self._shape:
            return False
        rows = [f"DELETE FROM {name}" for (name,) in self._ask(_TABLES)]
        counters = [f"ALTER SEQUENCE {name} RESTART" for (name,) in self._ask(_SEQUENCES)]
        # no order among the tables then: foreign keys are not looked at
        self._connection.execute(";".join(["BEGIN", "SET LOCAL session_replication_role = replica", *rows, *counters]))
        self._connection.execute("COMMIT")
        return True

    def drop(self) -> None:
        self._connection.close()
        self._database.__exit__(None, None, None)

    def _ask(self, question: str) -> list[Any]:
        return self._connection.execute(question).fetchall()
