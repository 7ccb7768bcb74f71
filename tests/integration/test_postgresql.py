"""What the ledger asks of a PostgreSQL session."""

from contextlib import suppress

from sqlalchemy import text

from farm.database import Database


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
