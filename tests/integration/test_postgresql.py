"""What the ledger asks of a PostgreSQL session."""

from contextlib import suppress

import pytest
from sqlalchemy import text

from farm.database import Database, Transaction, question
from schemas.errors import DatabaseUnavailableError


def test_the_server_ends_a_transaction_whose_client_vanished(postgres_url: str) -> None:
    """Else its locks would stay for hours, and nobody could take its pack back."""
    database = Database(postgres_url)
    told = []
    for _ in range(2):  # the second on the same connection, after a rollback
        with suppress(ZeroDivisionError), database.begin() as tx:
            told.append(tx.execute(text("SHOW idle_in_transaction_session_timeout")).scalar_one())
            raise ZeroDivisionError
    assert told == ["10s", "10s"]
    database.close()


@question
def conflicting(tx: Transaction) -> None:
    tx.execute(text("DO $$ BEGIN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'; END $$"))


def test_a_question_that_the_server_wants_asked_again_is_no_unknown_error(postgres_url: str) -> None:
    """A dispatcher or a worker's thread would end of one."""
    database = Database(postgres_url)
    with pytest.raises(DatabaseUnavailableError, match="could not serialize access"):
        conflicting(database)
    database.close()


def num_connections(database: Database) -> int:
    of_ours = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    )
    with database.begin(read_only=True) as tx:
        return int(tx.execute(of_ours).scalar_one())


def test_a_process_keeps_one_connection_so_that_fifty_workers_fit_into_a_hundred(postgres_url: str) -> None:
    """Also when its threads asked at the same moment."""
    database = Database(postgres_url)
    with database.begin(), database.begin(), database.begin():
        assert num_connections(database) == 4
    assert num_connections(database) == 1
    database.close()
