"""The supervisor with real processes that die, which stand in for workers (``stand_in_worker``); a real ledger."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from sqlalchemy import select, update

from farm.broker import Broker
from farm.database import Database
from farm.packs import begin_rendering, note_published
from schemas.pair import queue_name
from schemas.settings import Settings
from schemas.tables import Job, Pack, Worker
from tests.integration import stand_in_worker
from tests.integration.ledger_farm import claimed_pack, new_ledger, new_worker, open_batch, release_pack
from tests.integration.stand_in_package import stand_in_package
from tests.servers import RedisServer, temporary_folder
from worker.device_process.hands import Hands
from worker.device_process.progress_watchdog import Listening, ProgressWatchdog
from worker.host.assignments import Assignment
from worker.host.burial import bury
from worker.host.devices import Device
from worker.host.exit_codes import EXIT_DEAF, EXIT_DEVICE_LOST, EXIT_HUNG, EXIT_OUT_OF_SERVICE
from worker.host.supervisor import Supervisor

ROOT = Path(__file__).parents[2]


@pytest.fixture
def database(sqlite_url: str) -> Iterator[Database]:
    database = new_ledger(sqlite_url)
    yield database
    database.close()


@pytest.fixture
def supervisor_of(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Supervisor]:
    """``supervisor_of("lost")``: its workers are stand-ins that lose their devices. Restarts come without a wait."""
    monkeypatch.setenv("PYTHONPATH", stand_in_package(tmp_path, stand_in_worker))
    monkeypatch.setenv("NIGHTSHIFT_DATABASE_URL", str(database.engine.url))
    monkeypatch.setattr("worker.host.seat._MAX_BACKOFF_SECONDS", 0.01)

    def make(behaviour: str, devices: Sequence[Device] = (Device("cpu"),), **chosen: Any) -> Supervisor:
        monkeypatch.setenv("STAND_IN", behaviour)
        settings = Settings(home=tmp_path, database_url=str(database.engine.url), **chosen)
        return Supervisor(database, settings, [Assignment(device, "tiny") for device in devices])

    return make


def release(database: Database, num_packs: int, num_jobs: int = 2) -> None:
    for _ in range(num_packs):
        assert release_pack(database, open_batch(database, num_jobs), 8)


def rows(database: Database, statement: Any) -> list[Any]:
    with database.begin(read_only=True) as tx:
        return list(tx.execute(statement).all())


def wait_until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happens():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def ready(database: Database) -> bool:
    return bool(rows(database, select(Worker).where(Worker.state == "ready")))


def test_a_device_that_fails_three_packs_in_a_row_is_taken_out_of_service(
    database: Database, supervisor_of: Callable[..., Supervisor], caplog: pytest.LogCaptureFixture
) -> None:
    release(database, 4)
    assert supervisor_of("lost").run() == EXIT_OUT_OF_SERVICE
    sentence = (
        "cpu is out of service: it failed three packs in a row, the last one because the device is lost;"
        " mend the device, then start the worker again"
    )
    workers = rows(database, select(Worker).order_by(Worker.started_at))
    assert [(row.state, row.error) for row in workers] == [
        ("failed", "the device is lost"),
        ("failed", "the device is lost"),
        ("failed", sentence),
    ]
    assert caplog.messages[-1] == sentence
    jobs = rows(database, select(Job).order_by(Job.id))
    assert [job.state for job in jobs] == ["pending"] * 6 + ["queued"] * 2
    assert {(job.error_code, job.error) for job in jobs[:6]} == {
        ("device_lost", "its worker died while rendering it: the device is lost")
    }


def test_a_device_on_which_nothing_starts_takes_no_other_along(
    database: Database, supervisor_of: Callable[..., Supervisor], caplog: pytest.LogCaptureFixture
) -> None:
    supervisor = supervisor_of("ends 2", [Device("cuda", "0"), Device("cuda", "1")])
    codes: list[int] = []
    running = Thread(target=lambda: codes.append(supervisor.run()), daemon=True)
    running.start()
    sentence = "cuda:1 is out of service: its worker cannot start, because the process ended with 2"
    wait_until(lambda: sentence in caplog.messages and ready(database))
    supervisor.stop()
    running.join(30)
    assert codes == [0]
    assert rows(database, select(Worker.state)) == [("stopped",)]


def test_a_supervisor_without_a_device_on_which_anything_starts_ends_as_its_processes_did(
    supervisor_of: Callable[..., Supervisor],
) -> None:
    assert supervisor_of("ends 2").run() == 2


def test_a_job_that_kills_every_worker_fails_and_the_device_stays(
    database: Database, supervisor_of: Callable[..., Supervisor]
) -> None:
    """The stand-in dies of this one job until its tries are used up; then there is nothing to die of."""
    batch = open_batch(database, 1)
    supervisor = supervisor_of("lost")
    running = Thread(target=supervisor.run, daemon=True)
    running.start()
    for attempts in (1, 2, 3):
        with database.begin() as tx:
            tx.execute(update(Job).values(retry_at=None))  # its next try need not wait
        wait_until(lambda: release_pack(database, batch, 8) is not None)
        wait_until(lambda attempts=attempts: rows(database, select(Job.attempts)) == [(attempts,)])
    num_workers = len(rows(database, select(Worker)))
    wait_until(lambda: len(rows(database, select(Worker))) > num_workers)
    supervisor.stop()
    running.join(30)
    assert rows(database, select(Job.state)) == [("failed",)]


def test_a_deaf_worker_is_replaced_at_once(
    database: Database, supervisor_of: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.host.seat._FIRST_BACKOFF_SECONDS", 3600)
    supervisor = supervisor_of("deaf")
    running = Thread(target=supervisor.run, daemon=True)
    running.start()
    wait_until(lambda: ready(database))
    supervisor.stop()
    running.join(30)
    assert [row.state for row in rows(database, select(Worker).order_by(Worker.started_at))] == ["failed", "stopped"]


@pytest.mark.parametrize(("behaviour", "signals"), [("polite", 1), ("stubborn", 1), ("stubborn", 2)])
def test_a_stopping_supervisor_ends_its_workers_and_blames_no_job(
    database: Database, supervisor_of: Callable[..., Supervisor], monkeypatch: pytest.MonkeyPatch, behaviour: str,
    signals: int,
) -> None:  # fmt: skip
    """A stubborn worker is killed: after its time, or at a second signal after a few seconds."""
    monkeypatch.setattr("worker.host.supervisor.KILL_SECONDS", 0.1)
    release(database, 1, num_jobs=1)
    supervisor = supervisor_of(behaviour, stop_seconds=0.1 if signals == 1 else 3600)
    codes: list[int] = []
    running = Thread(target=lambda: codes.append(supervisor.run()), daemon=True)
    running.start()
    wait_until(lambda: ready(database))
    for _ in range(signals):
        supervisor.stop()
    running.join(30)
    assert codes == [0]
    assert rows(database, select(Job.state, Job.attempts, Job.isolated)) == [("pending", 0, False)]
    assert rows(database, select(Worker.state)) == [("stopped",)]


@pytest.mark.parametrize(("code", "attempts"), [(EXIT_DEVICE_LOST, [0, 1]), (EXIT_DEAF, [0, 0]), (-9, [0, 0])])
def test_only_the_pack_on_the_device_is_suspected_where_the_device_ended_its_process(
    database: Database, code: int, attempts: list[int]
) -> None:
    """The other was rendered and being stored, which may have killed a process that died otherwise: nobody knows."""
    batch, worker_id = open_batch(database, 2), new_worker(database)
    for pack in [claimed_pack(database, batch, worker_id, size=1) for _ in range(2)]:
        begin_rendering(database, pack.id, worker_id)
    bury(database, worker_id, code, 3)
    assert [row.attempts for row in rows(database, select(Job.attempts).order_by(Job.id))] == attempts
    assert {row.state for row in rows(database, select(Job.state))} == {"pending"}


def test_a_hung_process_is_gone_even_if_the_ledger_hangs_too(database: Database) -> None:
    worker_id = new_worker(database)
    end = (
        "import sys, worker.device_process.last_words as words; from farm.database import Database\n"
        "words._LEDGER_SECONDS = 0.2\n"
        f"words.end_process(Database(sys.argv[1]), {worker_id!r}, {EXIT_HUNG}, 'the device hangs')"
    )
    command = [sys.executable, "-c", end, str(database.engine.url)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with database.begin():  # holds SQLite's only write lock
        hanging = subprocess.run(command, env=environment, timeout=60)
    assert hanging.returncode == EXIT_HUNG
    assert rows(database, select(Worker.error)) == [(None,)]
    assert subprocess.run(command, env=environment, timeout=60).returncode == EXIT_HUNG
    assert rows(database, select(Worker.state, Worker.error)) == [("failed", "the device hangs")]


def listening(database: Database, url: str) -> Listening:
    return Listening(database, Broker(url), "tiny", Hands(), patience_seconds=0.3)


def test_a_consumer_that_takes_nothing_while_packs_wait_is_found_deaf(database: Database, redis_url: str) -> None:
    release(database, 1)
    ((pack_id,),) = rows(database, select(Pack.id))
    where, deaf, stopped = listening(database, redis_url), list[str](), Event()
    note_published(database, [pack_id])
    where.broker.publish(queue_name("tiny"), [pack_id])
    watching = ProgressWatchdog(where, deaf.append, stopped)
    watching.start()
    wait_until(lambda: bool(deaf))
    assert deaf[0].startswith("the consumer is deaf: 1 packs waited in Redis for 0.3 s")
    where.broker.close()


def test_nobody_is_deaf_while_redis_does_not_answer(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    release(database, 1)
    note_published(database, [row.id for row in rows(database, select(Pack))])
    with temporary_folder() as folder:
        where, deaf, stopped = listening(database, RedisServer(folder).url), list[str](), Event()
        ProgressWatchdog(where, deaf.append, stopped).start()
        wait_until(lambda: caplog.text.count("does not answer") > 8)  # past the patience
        stopped.set()
        where.broker.close()
    assert deaf == []
