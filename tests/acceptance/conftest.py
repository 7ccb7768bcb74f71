"""Farms as users start them: the real command, real worker processes, real servers.

Where a test is not about how processes start (``forked``), the same commands start stand-ins (``tests.stand_in``) for
processes that were forked by one that has imported everything: a worker imports for ten seconds.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Select, func, select

from farm.database import Database
from schemas.tables import Batch, Pack, Worker
from tests.acceptance.front_door import FrontDoor
from tests.children import ROOT, ForkServer
from tests.servers import PostgresServer, RedisServer, temporary_folder

#: Only a hang takes this long; a machine that has other work may take minutes to start a worker.
WAIT_SECONDS = 300.0


@dataclass
class Commands:
    """`nightshift` in a home folder. ``run`` waits for its end; what ``start`` starts is ended with the test."""

    home: Path
    environment: dict[str, str]
    front_door: FrontDoor
    started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def run(self, *arguments: str | Path, **variables: str) -> "subprocess.CompletedProcess[str]":
        words, environment = [*map(str, arguments)], {**self.environment, **variables}
        if not any(name.startswith("PYTHON") for name in variables):
            return self.front_door.run(words, environment, WAIT_SECONDS)
        command = [sys.executable, "-m", "nightshift", *words]  # the interpreter reads these at its start
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_SECONDS)

    def answer(self, *arguments: str | Path, **variables: str) -> Any:
        """What the command prints with --json. It must succeed."""
        done = self.run(*arguments, "--json", **variables)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *arguments: str | Path, **variables: str) -> "subprocess.Popen[bytes]":
        log = self._log(str(arguments[0]))
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            command = [sys.executable, "-m", "nightshift", *map(str, arguments)]
            process = subprocess.Popen(command, env={**self.environment, **variables}, stdout=stream, stderr=stream)
        self.started.append(process)
        return process

    def log(self, command: str) -> str:
        return self._log(command).read_text()

    def _log(self, command: str) -> Path:
        return self.home / "logs" / f"{command}.log"

    def processes(self) -> list[psutil.Process]:
        """Every living process whose environment has this home: of a forked one the stand-in, which ends with it."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("NIGHTSHIFT_HOME") == str(self.home) and _lives(process.pid):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass
class Farm(Commands):
    """One that several tests share, with servers of its own. Each test asks for its own batch, the newest one, and
    renders it ``--again``, for another may have rendered the same."""

    @cached_property
    def _database(self) -> Database:
        return Database(self.environment["NIGHTSHIFT_DATABASE_URL"])

    def rows(self, statement: Select[Any]) -> list[Any]:
        with self._database.begin(read_only=True) as tx:
            return list(tx.execute(statement).all())

    def close(self) -> None:
        super().close()
        self._database.close()

    def newest_batch(self) -> int:
        """Its number, which only grows; 0 where there was none yet."""
        return self.rows(select(func.max(Batch.id)))[0][0] or 0

    def worker_pids(self) -> set[int]:
        """The worker processes that live and have loaded their pair."""
        ready = [pid for (pid,) in self.rows(select(Worker.process_id).where(Worker.state == "ready"))]
        return {pid for pid in ready if _lives(pid)}

    def supervisors(self) -> list["subprocess.Popen[bytes]"]:
        """Those that live, the oldest first."""
        workers = [process for process in self.started if "worker" in process.args]  # type: ignore[operator]
        return [process for process in workers if process.poll() is None]

    def start_worker(self) -> "subprocess.Popen[bytes]":
        """One more, once it is ready."""
        before = self.worker_pids()
        supervisor = self.start("worker", "--pair", "tiny")
        wait_until(lambda: supervisor.poll() is not None or len(self.worker_pids() - before) == 1)
        assert supervisor.poll() is None, self.log("worker")
        return supervisor

    def settle(self) -> None:
        """Nothing of a test is left for the next: no batch to render, no pack in hand, no line in a log."""
        for (batch_id,) in self.rows(select(Batch.id).where(Batch.num_pending + Batch.num_queued > 0)):
            assert self.run("cancel", "--now", str(batch_id)).returncode == 0
        wait_until(lambda: not self.rows(select(Pack.id).where(Pack.state == "running")))
        for log in (self.home / "logs").glob("*.log"):
            os.truncate(log, 0)  # who appends to it goes on at the new end


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_until(happens: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share a farm, or what one rendered, run in one process (pytest --dist loadgroup): it is made once.

    So do all that have processes forked: the fork server imports for ten seconds. Only the chaos tests have another
    one, so that the two long groups go beside each other; xdist begins with those that have most tests, which they are.
    """
    for item in items:
        if set(getattr(item, "fixturenames", ())) & {"forked", "first_run"}:
            item.add_marker(pytest.mark.xdist_group("forked"))


@pytest.fixture(scope="package")
def front_door() -> Iterator[FrontDoor]:
    door = FrontDoor()
    try:
        yield door
    finally:
        door.close()


@contextmanager
def fresh_home(model_cache: Path, front_door: FrontDoor) -> Iterator[Commands]:
    with temporary_folder() as home:
        commands = Commands(home, _environment(home, model_cache), front_door)
        try:
            yield commands
        finally:
            commands.close()


@pytest.fixture
def commands(model_cache: Path, front_door: FrontDoor) -> Iterator[Commands]:
    with fresh_home(model_cache, front_door) as commands:
        yield commands


@pytest.fixture(scope="session")
def forked(fork_server: ForkServer) -> dict[str, str]:
    """Variables with which every process of Nightshift comes from the fork server, though it is started as ever."""
    fork_server.wait()
    path = [str(ROOT / "tests" / "forked"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(path),
        "FORK_SERVER": str(fork_server.socket),
        "FORK_THROUGH": "tests.fork_server",
    }


@pytest.fixture(scope="package")
def shared_farm(model_cache: Path, front_door: FrontDoor, forked: dict[str, str]) -> Iterator[Farm]:
    with temporary_folder() as home:
        url = f"sqlite:///{home / 'ledger.sqlite3'}"
        variables = {**_environment(home, model_cache), **forked, "NIGHTSHIFT_DATABASE_URL": url}
        with _farm(home, variables, front_door) as farm:
            farm.start_worker()
            yield farm


@pytest.fixture
def warm_farm(shared_farm: Farm) -> Iterator[Farm]:
    """Redis, and a worker that has loaded the tiny pair: for tests of what is rendered, and not of who starts it.

    `render` and `grid` bring the dispatcher, with their own settings of it.
    """
    assert shared_farm.worker_pids(), shared_farm.log("worker")
    yield shared_farm
    shared_farm.settle()


@pytest.fixture(scope="module")
def shared_postgres_farm(
    model_cache: Path, front_door: FrontDoor, postgres_server: PostgresServer, forked: dict[str, str]
) -> Iterator[Farm]:
    with temporary_folder() as home, postgres_server.new_database() as url:
        variables = {
            "NIGHTSHIFT_DATABASE_URL": url,
            "NIGHTSHIFT_LEASE_SECONDS": "10",
            "NIGHTSHIFT_STOP_SECONDS": "3600",
        }
        with _farm(home, {**_environment(home, model_cache), **forked, **variables}, front_door) as farm:
            farm.start("dispatcher")
            yield farm


@pytest.fixture
def postgres_farm(shared_postgres_farm: Farm) -> Iterator[Farm]:
    """Redis and a dispatcher."""
    yield shared_postgres_farm
    shared_postgres_farm.settle()


@pytest.fixture
def worker(postgres_farm: Farm) -> "subprocess.Popen[bytes]":
    """The supervisor of a worker that is ready. The test may do with it what it likes: the next one gets a new one."""
    supervisors = postgres_farm.supervisors()
    if len(supervisors) == 1 and postgres_farm.worker_pids():
        return supervisors[0]
    for supervisor in supervisors:  # of a test that failed
        supervisor.kill()
        supervisor.wait()
    wait_until(lambda: not postgres_farm.worker_pids())
    return postgres_farm.start_worker()


@contextmanager
def _farm(home: Path, environment: dict[str, str], front_door: FrontDoor) -> Iterator[Farm]:
    with temporary_folder() as folder:
        redis = RedisServer(folder)  # not the tests' common one: that is emptied for each of them
        farm = Farm(home, {**environment, "NIGHTSHIFT_BROKER_URL": redis.url}, front_door)
        try:
            redis.start()
            assert farm.run("db", "upgrade").returncode == 0
            yield farm
        finally:
            farm.close()
            redis.stop()


def _environment(home: Path, model_cache: Path) -> dict[str, str]:
    (home / "cache").symlink_to(model_cache)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTSHIFT_")}
    one_thread = {"OMP_NUM_THREADS": "1"}  # networks this small wait for threads far longer than they work
    return {**inherited, **one_thread, "NIGHTSHIFT_HOME": str(home), "NIGHTSHIFT_DEVICES": "cpu"}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return twelve_small_jobs(tmp_path)


def twelve_small_jobs(folder: Path) -> Path:
    """A manifest: two sizes, three schedulers, with and without the refiner."""
    path = folder / "prompts.tsv"
    lines = ["Prompt\tWidth\tScheduler\trefiner.mode\tCategory"]
    for n in range(12):
        lines.append(f"a cat, number {n}\t{64 + 64 * (n % 2)}\t{('euler', 'Euler a', 'DDIM')[n % 3]}\t"
                     f"{'off' if n == 11 else ''}\tcats")  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return path


SMALL = ("--set", "height=64", "--set", "num_inference_steps=5")
