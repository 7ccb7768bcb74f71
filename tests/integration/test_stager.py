"""Chunks on their way into the ledger, on a real SQLite and a real PostgreSQL."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import select

from farm import batches, ledger
from farm.database import Database
from producer.submitting.stager import Stager
from schemas.errors import InputError
from schemas.states import JobState
from schemas.tables import Batch
from tests.integration.ledger_farm import job_rows, new_ledger, staged, states


@pytest.fixture
def on_postgresql(postgres_url: str) -> Iterator[Database]:
    with closing(new_ledger(postgres_url)) as database:
        yield database


@pytest.fixture
def batch_id(database: Database) -> int:
    return batches.create_batch(database, "cats", "tiny", 5)


def test_jobs_are_numbered_and_stored_in_the_order_of_their_rows(database: Database, batch_id: int) -> None:
    with Stager(database, batch_id) as stager:
        for first in (1, 4, 7):
            stager.stage([staged(number) for number in range(first, first + 3)])
    jobs = job_rows(database, batch_id)
    assert [job.number for job in sorted(jobs, key=lambda job: job.id)] == list(range(1, 10))


def test_what_the_ledger_says_against_the_last_chunk_is_said_at_the_end(database: Database, batch_id: int) -> None:
    batches.discard_batch(database, batch_id)
    stager = Stager(database, batch_id)
    with pytest.raises(InputError, match=f"batch {batch_id} was canceled while its rows were read"), stager:
        stager.stage([staged(1)])
    assert job_rows(database, batch_id) == []


def test_after_an_interrupt_nothing_comes_into_the_ledger_any_more(database: Database, batch_id: int) -> None:
    def interrupted() -> None:
        with Stager(database, batch_id) as stager:
            stager.stage([staged(number) for number in range(1, 500)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(job_rows(database, batch_id)) == 499
    batches.discard_batch(database, batch_id)
    assert job_rows(database, batch_id) == []


def test_rows_are_read_on_while_the_server_takes_a_chunk_in(on_postgresql: Database) -> None:
    batch_id = batches.create_batch(on_postgresql, "cats", "tiny", 5)
    with Stager(on_postgresql, batch_id) as stager:
        with on_postgresql.begin() as tx:
            tx.execute(select(Batch.id).where(Batch.id == batch_id).with_for_update())
            stager.stage([staged(1)])  # which waits for the row that is locked here
        stager.stage([staged(2)])
    assert len(job_rows(on_postgresql, batch_id)) == 2


def test_rows_of_which_the_batch_has_some_are_counted_rightly_in_any_number(database: Database, batch_id: int) -> None:
    for first, last, num_new in ((3, 3, 1), (1, 120, 119), (50, 170, 50)):
        assert ledger.stage_jobs(database, batch_id, [staged(n) for n in range(first, last + 1)]) == num_new
    assert [job.number for job in job_rows(database, batch_id)] == list(range(1, 171))
    assert states(database, batch_id) == {JobState.PENDING: 170}


def test_sqlite_has_more_memory_for_a_bulk_write_alone(on_sqlite: Database) -> None:
    def memory(bulk: bool) -> list[int]:
        with on_sqlite.begin(bulk=bulk) as tx:
            pragmas = ("PRAGMA temp_store", "PRAGMA cache_size")
            return [tx.connection.exec_driver_sql(pragma).scalar_one() for pragma in pragmas]

    plain, bulk, again = memory(bulk=False), memory(bulk=True), memory(bulk=False)
    assert (plain, bulk, again) == ([0, -2000], [2, -65536], [0, -2000])
