"""A farm whose jobs all wait, made in bulk: two batches, workers that are only rows, a real Redis and dispatcher.

A hundredth of the first batch's jobs have failed, so that there is something to try again.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import insert, update

from farm import batches, ledger
from farm.database import Database
from farm.schema import upgrade
from schemas.records import StagedJob
from schemas.spec import JobSpec
from schemas.states import JobState, PackState
from schemas.tables import Batch, Job, Pack, Worker
from schemas.written_spec import SpecKind
from tests.servers import PostgresServer, RedisServer, temporary_folder

PAIR = "sdxl"
#: of the farm's jobs, in the other batch
OTHER_SHARE = 0.4
#: no worker ends here, and none of them renews anything
LEASE_SECONDS = 3600.0

_CHUNK = 20_000
_SIZES = ((1024, 1024), (1152, 896), (896, 1152))
_FAILED_SHARE = 0.01
_STOP_SECONDS = 30.0


@dataclass(frozen=True)
class WaitingFarm:
    """``first`` and ``other``: the batches; ``num_failed`` of the first one's jobs have failed, its oldest ones."""

    database_url: str
    redis_url: str
    #: of a command that is to ask this farm
    environment: dict[str, str]
    first: int
    other: int
    num_failed: int
    worker_id: str


@contextmanager
def waiting_farm(kind: str, num_jobs: int, num_devices: int) -> Iterator[WaitingFarm]:
    """``kind``: of the ledger. The dispatcher runs, and has live workers to fill the queue for."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        redis = RedisServer(folder)
        redis.start()
        stack.callback(redis.stop)
        url = _ledger(stack, kind, folder)
        with closing(Database(url)) as database:
            upgrade(database)
            first, other, num_failed = _fill(database, num_jobs)
            worker_id = _seat(database, num_devices)
            _analyze(database)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")},
            "NIGHTSHIFT_HOME": str(folder / "home"),
            "NIGHTSHIFT_DATABASE_URL": url,
            "NIGHTSHIFT_BROKER_URL": redis.url,
            "NIGHTSHIFT_LEASE_SECONDS": str(LEASE_SECONDS),
            "PYTHONDONTWRITEBYTECODE": "",  # else each command would compile its modules anew
        }
        stack.enter_context(_dispatcher(environment, folder / "dispatcher.log"))
        yield WaitingFarm(url, redis.url, environment, first, other, num_failed, worker_id)


def _ledger(stack: ExitStack, kind: str, folder: Path) -> str:
    if kind == "sqlite":
        return f"sqlite:///{folder}/ledger.sqlite3"
    server = PostgresServer(folder)
    server.start()
    stack.callback(server.stop)
    return stack.enter_context(server.new_database())


def _fill(database: Database, num_jobs: int) -> tuple[int, int, int]:
    num_others = int(num_jobs * OTHER_SHARE)
    first = _waiting_batch(database, "first", num_jobs - num_others)
    other = _waiting_batch(database, "other", num_others)
    num_failed = int(num_jobs * _FAILED_SHARE)
    _fail(database, first, num_failed)
    return first, other, num_failed


def _waiting_batch(database: Database, name: str, num_jobs: int) -> int:
    """Of three sizes in turn, so that neighbours never share one."""
    kinds = [SpecKind(JobSpec(prompt="any", seed=0, width=width, height=height)) for width, height in _SIZES]
    batch_id = batches.create_batch(database, name, PAIR, 5)
    for first in range(1, num_jobs + 1, _CHUNK):
        numbers = range(first, min(first + _CHUNK, num_jobs + 1))
        jobs = [StagedJob.of(n, kinds[n % 3].written(f"picture {n} of {name}", n), 0, {"row": str(n)}) for n in numbers]
        ledger.stage_jobs(database, batch_id, jobs)
    batches.open_batch(database, batch_id)
    return batch_id


def _fail(database: Database, batch_id: int, num_failed: int) -> None:
    """In one pack, for none of them is asked for its neighbours."""
    pack_id, why = "f" * 32, {"error": "the LoRA pixel-art is not there", "error_code": "lora"}
    oldest = (Job.batch_id == batch_id, Job.number <= num_failed)
    counted = {"num_pending": Batch.num_pending - num_failed, "num_failed": Batch.num_failed + num_failed}
    with database.begin() as tx:
        tx.execute(insert(Pack), {"id": pack_id, "batch_id": batch_id, "pair": PAIR, "pack_key": "k",
                                  "state": PackState.FINISHED, "num_jobs": num_failed, "released_at": tx.now,
                                  "ended_at": tx.now})  # fmt: skip
        tx.execute(update(Job).where(*oldest).values(state=JobState.FAILED, pack_id=pack_id, **why))
        tx.execute(update(Batch).where(Batch.id == batch_id).values(counted))


def _seat(database: Database, num_devices: int) -> str:
    """So many live workers. Returns the id of one."""
    rows = [{"id": f"{number:032x}", "host": "simulated", "process_id": 1, "device": str(number), "pair": PAIR,
             "state": "ready"} for number in range(num_devices)]  # fmt: skip
    with database.begin() as tx:
        tx.execute(insert(Worker), [{**row, "started_at": tx.now, "seen_at": tx.now} for row in rows])
    return f"{0:032x}"


def _analyze(database: Database) -> None:
    """As PostgreSQL's autovacuum does after a while, which comes at any moment here."""
    if database.engine.dialect.name == "postgresql":
        with database.begin(read_only=True) as tx:
            tx.connection.exec_driver_sql("VACUUM ANALYZE")


@contextmanager
def _dispatcher(environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("wb") as stream:
        command = [sys.executable, "-m", "nightshift", "dispatcher"]
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
    try:
        yield
        assert process.poll() is None, log.read_text()
    finally:
        process.terminate()
        process.wait(_STOP_SECONDS)
