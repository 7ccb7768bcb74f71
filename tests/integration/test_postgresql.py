"""What the ledger asks of a PostgreSQL session."""

import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import QueuePool, event, text

from farm import database as farm_database
from farm import ledger, packs
from farm.claims import claim
from farm.database import Database, Transaction, question, transaction
from farm.leases import ledger_time
from farm.schema import upgrade
from producer.dispatching.release import work_of
from producer.questions.measured_packs import LastPacks
from producer.questions.pace import MeasuredPack
from producer.questions.prospect import Prospects
from producer.questions.queries import batch_summary
from producer.web.app import web_app
from producer.web.farm import NUM_THREADS, WebFarm
from schemas.errors import DatabaseUnavailableError
from schemas.settings import Settings
from tests.integration.ledger_farm import (
    ENVIRONMENT,
    claimed_pack,
    images_of,
    new_ledger,
    new_worker,
    open_batch,
    release_pack,
    states,
)
from tests.integration.web_client import web_client


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


@transaction
def one(tx: Transaction) -> int:
    return int(tx.execute(text("SELECT 1")).scalar_one())


def end_all_connections(url: str) -> None:
    """As a server that is started again."""
    with closing(Database(url)) as other, other.begin() as tx:
        tx.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND pid != pg_backend_pid()"
                        " AND application_name = 'nightshift'"))  # fmt: skip


def test_a_connection_that_has_died_since_it_was_used_is_no_error(postgres_url: str) -> None:
    with closing(new_ledger(postgres_url)) as database:
        worker_id = new_worker(database)
        pack = claimed_pack(database, open_batch(database, 1), worker_id)
        for ask in (
            lambda: one(database),
            lambda: packs.is_known(database, pack.id),
            lambda: packs.begin_rendering(database, pack.id, worker_id),
        ):
            end_all_connections(postgres_url)
            assert ask()


def test_a_transaction_that_loses_its_connection_is_not_run_again(postgres_url: str) -> None:
    """It may have been committed."""
    runs = []

    @transaction
    def dying(tx: Transaction) -> None:
        runs.append(tx.execute(text("SELECT pg_backend_pid()")).scalar_one())
        end_all_connections(postgres_url)
        tx.execute(text("SELECT 1"))

    with closing(Database(postgres_url)) as database, pytest.raises(DatabaseUnavailableError):
        dying(database)
    assert len(runs) == 1


def test_what_is_refused_in_the_middle_of_a_transaction_takes_all_of_it_back(postgres_url: str) -> None:
    with closing(new_ledger(postgres_url)) as database:
        released = release_pack(database, open_batch(database, 1))
        assert released is not None
        worker_id = new_worker(database)
        with suppress(ZeroDivisionError), database.begin() as tx:
            assert claim(tx, released.id, worker_id, 60, "", 60)
            raise ZeroDivisionError
        assert ledger.claim_pack(database, released.id, worker_id, 60) is not None


def test_the_oldest_of_a_batch_and_a_packs_jobs_are_found_by_their_indexes_before_the_server_has_figures(
    empty_postgres_url: str,
) -> None:
    """Prepared without the values, as they are after a few runs, and in tables of which nothing is known yet."""
    asked = {
        "SELECT id FROM jobs WHERE batch_id = $1 AND state = 'pending' ORDER BY isolated, id LIMIT $2":
            "ix_jobs_pending_oldest",
        "SELECT id FROM jobs WHERE state = 'queued' AND pack_id = $1": "ix_jobs_pack_id",
        "SELECT id FROM packs WHERE batch_id = $1 AND pair = $2 AND state = 'queued' ORDER BY released_at LIMIT 1":
            "ix_packs_oldest",
    }  # fmt: skip
    with closing(Database(empty_postgres_url)) as database:
        upgrade(database)
        open_batch(database, 400)
        for statement, index in asked.items():
            with database.begin(read_only=True) as tx:
                plan = tx.connection.exec_driver_sql(f"EXPLAIN (GENERIC_PLAN) {statement}").scalars().all()
            assert any(index in step for step in plan), plan
            assert not any("Sort" in step for step in plan), plan


def test_a_tick_asks_for_the_last_packs_and_reads_no_others(postgres_url: str) -> None:
    """Of ten million jobs' packs it once read all, each second."""
    with closing(new_ledger(postgres_url)) as database:
        asked = list[tuple[str, Any]]()
        event.listen(database.engine, "before_cursor_execute", lambda *given: asked.append(given[2:4]))
        assert LastPacks(database).of("tiny") == []
        (statement, values), *_ = asked
        with database.begin(read_only=True) as tx:
            plan = tx.connection.exec_driver_sql(f"EXPLAIN {statement}", values).scalars().all()
        assert any("ix_packs_ended" in step for step in plan), plan
        assert not any("Sort" in step for step in plan), plan


def test_what_a_pack_takes_is_asked_of_postgresql_as_of_sqlite(postgres_url: str) -> None:
    with closing(new_ledger(postgres_url)) as database:
        worker_id, batch_id = new_worker(database), open_batch(database, 4)
        first = claimed_pack(database, batch_id, worker_id, 2)
        ledger.finish_jobs(database, first, ENVIRONMENT, images_of(first, seconds=8.0))
        measured = MeasuredPack(batch_id, worker_id, work_of(first.pack_key, 2), 8.0)
        assert LastPacks(database).of("tiny") == [measured]
        prospects = Prospects(database, Settings(window="00:00-24:00 UTC"))
        known = prospects.of(ledger_time(database), [batch_summary(database, batch_id)])
        assert known[batch_id].pack_seconds == prospects.pack_seconds("tiny", {batch_id: 2})[batch_id] == 8.0


def test_a_pack_is_claimed_begun_and_finished_in_a_round_trip_each(postgres_url: str) -> None:
    """Each costs the server as much as several rows do."""
    with closing(new_ledger(postgres_url)) as database:
        worker_id, batch_id = new_worker(database), open_batch(database, 4)
        first = claimed_pack(database, batch_id, worker_id, 2)
        ledger.finish_jobs(database, first, ENVIRONMENT, images_of(first))  # now the environment is known
        released = release_pack(database, batch_id, 2)
        assert released is not None
        asked = list[str]()
        event.listen(database.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
        pack = ledger.claim_pack(database, released.id, worker_id, 60, first.pack_key)
        assert pack is not None
        assert packs.begin_rendering(database, pack.id, worker_id)
        ledger.finish_jobs(database, pack, ENVIRONMENT, images_of(pack))
        assert len(asked) == 3, asked
        assert states(database, batch_id) == {"done": 4}


def test_a_process_keeps_one_connection_so_that_fifty_workers_fit_into_a_hundred(postgres_url: str) -> None:
    """Also when its threads asked at the same moment."""
    database = Database(postgres_url)
    pool = database.engine.pool
    assert isinstance(pool, QueuePool)
    with database.begin(), database.begin(), database.begin():
        assert pool.checkedout() == 3
    assert (pool.checkedout(), pool.checkedin()) == (0, 1)
    database.close()


def test_who_waits_too_long_for_a_connection_of_its_process_is_told_so(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one sentence, as of a ledger that does not answer: it may be tried again."""
    monkeypatch.setattr(farm_database, "_WAIT_SECONDS", 0.05)
    with closing(Database(postgres_url)) as database:
        with ExitStack() as held:
            for _ in range(farm_database.NUM_CONNECTIONS):
                held.enter_context(database.begin())
            with pytest.raises(DatabaseUnavailableError, match=r"no connection was free for 0\.05 s"):
                one(database)
        assert one(database) == 1


def test_each_thread_of_the_web_page_has_a_connection_and_who_finds_none_is_told_to_come_again(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(farm_database, "_WAIT_SECONDS", 0.05)
    new_ledger(postgres_url).close()
    settings = Settings(home=tmp_path, database_url=postgres_url, images_url=str(tmp_path / "images"))
    with closing(WebFarm.open(settings)) as farm, web_client(web_app(farm)) as client, ExitStack() as held:
        for _ in range(NUM_THREADS):
            held.enter_context(farm.database.begin())
        assert client.get("/api/v1/batches").status_code == 200
        held.enter_context(farm.database.begin())  # what looks for events has one, too
        answer = client.get("/api/v1/batches")
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert int(answer.headers["retry-after"]) > 0


def test_a_supervisor_keeps_none_so_that_hosts_of_one_gpu_each_fit_too(postgres_url: str) -> None:
    with closing(Database(postgres_url, keeps_connection=False)) as database, closing(Database(postgres_url)) as other:
        with database.begin(read_only=True) as tx:
            process_id = tx.connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        deadline = time.monotonic() + 30
        while process_id in backends(other):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def backends(database: Database) -> set[int]:
    with database.begin(read_only=True) as tx:
        return set(tx.connection.exec_driver_sql("SELECT pid FROM pg_stat_activity").scalars())
