"""How many images a batch gave over time, on both ledgers."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from farm import ledger
from farm.database import Database
from farm.retries import Failure
from producer.questions import batch_throughput
from producer.questions.batch_throughput import throughput
from producer.reports.report_figures import Throughput
from tests.integration.ledger_farm import (
    ENVIRONMENT,
    LEASE_SECONDS,
    TestClock,
    claimed_pack,
    images_of,
    new_ledger,
    new_worker,
    open_batch,
)

WRONG = Failure("render", "is black", retryable=False, is_of_the_job=True)


def found(database: Database, batch_id: int) -> Throughput:
    found = throughput(database, batch_id)
    assert found is not None
    return found


def render(database: Database, batch_id: int, size: int) -> None:
    pack = claimed_pack(database, batch_id, new_worker(database), size)
    ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))


def test_images_are_counted_and_not_the_jobs_of_their_packs(database: Database, clock: TestClock) -> None:
    began, batch_id = clock.now, open_batch(database, 10)
    pack = claimed_pack(database, batch_id, new_worker(database))
    ledger.fail_jobs(database, pack, [job.id for job in pack.jobs[1:]], WRONG, 1)
    assert throughput(database, batch_id) is None
    ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack)[:1])
    clock.advance(3)
    render(database, batch_id, 2)
    assert found(database, batch_id) == Throughput(began, 1, (1, 0, 0, 2))


def test_images_of_packs_that_went_back_count(database: Database, clock: TestClock) -> None:
    batch_id = open_batch(database, 8)
    returned = claimed_pack(database, batch_id, new_worker(database), 4)
    ledger.finish_jobs(database, returned, ENVIRONMENT, images_of(returned)[:3])
    ledger.give_back_pack(database, returned)
    expired = claimed_pack(database, batch_id, new_worker(database), 4)
    ledger.finish_jobs(database, expired, ENVIRONMENT, images_of(expired)[:1])
    clock.advance(LEASE_SECONDS + 1)
    ledger.expire_leases(database, 3)
    assert sum(found(database, batch_id).nums) == 4


def test_an_image_that_was_linked_to_was_not_rendered(database: Database) -> None:
    render(database, open_batch(database, 1), 1)
    twin = open_batch(database, 1)
    ledger.link_jobs(database, twin, {2: 1})
    assert throughput(database, twin) is None
    assert throughput(database, 99) is None


def test_a_large_batch_is_told_of_by_every_so_many_th_job(
    database: Database, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_throughput, "_LOOKED_AT", 10)
    began, batch_id = clock.now, open_batch(database, 60)
    render(database, batch_id, 16)  # what is there is looked at more closely, while it is little
    assert found(database, batch_id) == Throughput(began, 1, (16,), 2)
    clock.advance(1)
    render(database, batch_id, 44)
    assert found(database, batch_id) == Throughput(began, 1, (12, 48), 6)


def test_a_batch_is_looked_at_by_its_indexes(tmp_path: Path) -> None:
    """Neither a whole table is read, nor all of the batch."""
    asked: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    with closing(new_ledger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}")) as database:
        batch_id = open_batch(database, 1)
        event.listen(database.engine, "before_cursor_execute", note)
        throughput(database, batch_id)
        (joined,) = [one for one in asked if "JOIN results" in one[0]]
        with database.begin(read_only=True) as tx:
            plan = [row[3] for row in tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {joined[0]}", joined[1])]
    assert [step for step in plan if "jobs" in step or "results" in step] == [
        "SEARCH jobs USING COVERING INDEX ix_jobs_number (batch_id=? AND number=?)",
        "SEARCH results USING INTEGER PRIMARY KEY (rowid=?)",
    ]
