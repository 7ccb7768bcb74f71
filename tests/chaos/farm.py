"""A farm under test: real servers, dispatchers and supervisors with their workers, each a process of its own.

What dies is started again, as an operator's service manager would. ``folder`` keeps everything that a run leaves:
ledger (SQLite), images, logs, the words of fired points.
"""

import itertools
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event, RLock, Thread
from typing import Any, Literal, Self, get_args

from sqlalchemy import Engine, create_engine, make_url

from schemas.pair import queue_name
from schemas.settings import Settings
from tests.chaos import audit
from tests.chaos.job_pool import ordinary_rows, rows_without_refiner, write_manifest
from tests.chaos.proxy import Proxy
from tests.chaos.rules import Rules
from tests.chaos.services import LAUNCH, Services, chaos_request, plain_environment
from tests.chaos.store import Store
from tests.children import Child
from tests.servers import RedisServer

Ledger = Literal["sqlite", "postgresql"]
#: ``visitor``: a worker that is there for a while, with points of its own
Role = Literal["worker", "visitor", "dispatcher", "producer"]
PAIR = "tiny"
QUEUE = queue_name(PAIR)
#: whether a worker ends by itself when a step of it hangs
HAS_WATCHDOG = "render_budget_seconds" in Settings.model_fields
#: A step that was stopped for a while is no hung one: its late finish is what is looked for.
_PATIENCE = {"NIGHTSHIFT_RENDER_BUDGET_SECONDS": "120", "NIGHTSHIFT_DEAF_SECONDS": "15"} if HAS_WATCHDOG else {}
_PAIRS = """
[pairs.truncated]
base = {{ source = "{weights}/truncated" }}
[pairs.changing]
base = {{ source = "{weights}/changing" }}
"""
_COMMAND_SECONDS = 120.0
_TEND_SECONDS = 0.2


@dataclass
class Seat:
    """A process that is to run: started again when it ends, until ``leave``."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    child: Child | None = None
    left: bool = False


class Farm:
    """A context manager. Faults act on it from one thread; another one tends the seats."""

    def __init__(self, folder: Path, shared: Services, ledger: Ledger, rules: Rules) -> None:
        self.folder = folder
        self.shared = shared
        self.ledger: Ledger = ledger
        self.rules = rules
        self.home = folder / "home"
        self.home.mkdir()
        (self.home / "cache").symlink_to(shared.cache)
        self.store = Store(self.home)
        self.redis = RedisServer(folder)
        self.seats: list[Seat] = []
        self.engine: Engine
        self.redis_proxy: Proxy
        self.database_proxy: Proxy | None = None
        self.submitted = 0
        self._commands = itertools.count(1)
        #: prompts that were rendered with weights which the reference does not have
        self.of_other_weights: set[str] = set()
        self._rows = iter(ordinary_rows())
        self._rows_without_refiner = iter(rows_without_refiner())
        self._lock = RLock()
        self._stop = Event()
        self._stack = ExitStack()
        for role in get_args(Role):
            self.points(role).joinpath("fired").mkdir(parents=True)
        (folder / "logs").mkdir()
        (self.home / "nightshift.toml").write_text(_PAIRS.format(weights=self.home / "weights"))

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.callback(self.redis.stop)
            self.redis.start()
            port = make_url(self.redis.url).port
            self.redis_proxy = self._proxy(lambda: socket.create_connection(("127.0.0.1", port), 5))
            self._open_ledger()
            self.command("db", "upgrade")
            audit.install(self.engine)
            self._stack.callback(self._end_seats)
            for n in range(self.rules.num_dispatchers):
                self.take_seat(f"dispatcher-{n}", "dispatcher", "dispatcher")
            for n in range(self.rules.num_workers):
                self.add_worker(f"worker-{n}")
            tender = Thread(target=self._tend, name="tender")
            tender.start()
            self._stack.callback(tender.join)
            self._stack.callback(self._stop.set)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- processes ------------------------------------------------------------------------------------------------

    def add_worker(self, name: str, pair: str = PAIR, **variables: str) -> Seat:
        """A supervisor with one worker on the CPU."""
        return self.take_seat(name, "worker", "worker", "--pair", pair, "--devices", "cpu", **variables)

    def take_seat(self, name: str, role: Role, *arguments: str, **variables: str) -> Seat:
        seat = Seat(name, list(arguments), {**self._environment(role), **variables})
        with self._lock:
            self._start(seat)
            self.seats.append(seat)
        return seat

    def leave_seat(self, seat: Seat) -> int | None:
        """Ends it gently. Returns its exit code."""
        with self._lock:
            seat.left = True
            self.seats.remove(seat)
        return seat.child.end() if seat.child is not None else None

    def command(self, *arguments: str, may_fail: bool = False) -> tuple[int, str]:
        """Runs `nightshift ARGUMENTS` to its end. Returns its exit code, negative for a signal, and its output."""
        log = self.folder / "logs" / f"command-{next(self._commands):03}-{arguments[0]}.log"
        child = self._fork(arguments, self._environment("producer"), log)
        code = child.wait(_COMMAND_SECONDS)
        output = log.read_text(errors="replace")
        if code is None:
            child.end()
            raise TimeoutError(f"`nightshift {' '.join(arguments)}` hung: {output[-2000:]}")
        assert code == 0 or may_fail, f"`nightshift {' '.join(arguments)}` ended with {code}: {output[-2000:]}"
        return code, output

    # --- jobs -----------------------------------------------------------------------------------------------------

    def submit(self, rows: Sequence[dict[str, Any]], *options: str, may_fail: bool = False) -> int | None:
        """`nightshift submit` of the rows. Returns the batch's number; None where it failed or died."""
        manifest = write_manifest(self.home / f"manifest-{next(self._commands):03}.jsonl", rows)
        code, output = self.command("submit", str(manifest), "--json", *options, may_fail=may_fail)
        self.submitted += len(rows) if code == 0 else 0
        return int(json_in(output)["batch_id"]) if code == 0 else None

    def next_rows(self, num: int) -> list[dict[str, Any]]:
        """Rows of the pool that this run has not had yet; fewer, where it is empty."""
        return list(itertools.islice(self._rows, num))

    def rows_without_refiner(self, num: int) -> list[dict[str, Any]]:
        return list(itertools.islice(self._rows_without_refiner, num))

    def feed(self, num_unfinished: int) -> None:
        """Submits so much that about so many jobs are unfinished."""
        missing = num_unfinished - self.num_unfinished()
        if missing > 0 and (rows := self.next_rows(max(missing, 4))):
            self.submit(rows)

    def num_unfinished(self) -> int:
        return int(
            self.ask(
                "SELECT count(*) FROM jobs JOIN batches ON batches.id = jobs.batch_id"
                " WHERE batches.state = 'open' AND jobs.state IN ('pending', 'queued')"
            )[0][0]
        )

    def num_waiting(self) -> int:
        """Jobs that a worker could have now: not those whose next try has to wait."""
        now = "CURRENT_TIMESTAMP" if self.ledger == "postgresql" else "datetime('now')"
        return int(
            self.ask(
                "SELECT count(*) FROM jobs JOIN batches ON batches.id = jobs.batch_id"
                " LEFT JOIN packs ON packs.id = jobs.pack_id AND packs.state = 'queued'"
                f" WHERE batches.state = 'open' AND batches.pair = '{PAIR}' AND (packs.id IS NOT NULL"
                f" OR (jobs.state = 'pending' AND (jobs.retry_at IS NULL OR jobs.retry_at < {now})))"
            )[0][0]
        )

    def ask(self, question: str) -> list[Any]:
        """Rows of the ledger, by SQL of our own, over no proxy."""
        with self.engine.connect() as connection:
            return list(connection.exec_driver_sql(question))

    # --- points ---------------------------------------------------------------------------------------------------

    def points(self, role: str) -> Path:
        return self.folder / "points" / role

    def arm(self, role: Role, point: str, action: str) -> Path:
        """Arms the point once. Returns the file that is there until somebody comes by."""
        path = self.points(role) / point
        new = path.with_name(f".{point}.new")
        new.write_text(action)
        new.rename(path)
        return path

    def fired(self, role: str, point: str = "") -> list[dict[str, Any]]:
        """What the processes said when they came by armed points, oldest first."""
        words = [json.loads(path.read_text()) for path in self.points(role).glob("fired/.*")]
        return sorted((word for word in words if point in ("", word["point"])), key=lambda word: word["at"])

    # --- inside ---------------------------------------------------------------------------------------------------

    def _environment(self, role: Role) -> dict[str, str]:
        rules = self.rules
        return {
            **plain_environment(),
            "NIGHTSHIFT_HOME": str(self.home),
            "NIGHTSHIFT_DATABASE_URL": self.database_url,
            "NIGHTSHIFT_BROKER_URL": str(
                make_url(self.redis.url).set(port=self.redis_proxy.port).render_as_string(hide_password=False)
            ),
            "NIGHTSHIFT_IMAGES_URL": self.store.url,
            "NIGHTSHIFT_LEASE_SECONDS": f"{rules.lease_seconds}",
            "NIGHTSHIFT_TICK_SECONDS": f"{rules.tick_seconds}",
            "NIGHTSHIFT_MAX_ATTEMPTS": f"{rules.max_attempts}",
            "NIGHTSHIFT_PACK_SIZE": f"{rules.pack_size}",
            "NIGHTSHIFT_FORWARD_PASS_SIZE": "1",
            "NIGHTSHIFT_QUEUED_PACKS_PER_WORKER": "2",
            "NIGHTSHIFT_PNG_COMPRESS_LEVEL": "1",
            **_PATIENCE,
            "CHAOS_POINTS": str(self.points(role)),
            "CHAOS_STEP_SECONDS": f"{rules.step_seconds}",
            "CHAOS_BREAK": rules.breaks,
            "FORK_SERVER": str(self.shared.forks.socket),
            "FORK_THROUGH": LAUNCH,
        }

    def _open_ledger(self) -> None:
        if self.ledger == "sqlite":
            self.database_url = f"sqlite:///{self.home / 'ledger.sqlite3'}"
            self.engine = create_engine(self.database_url, connect_args={"timeout": 60})
        else:
            direct = make_url(self._stack.enter_context(self.shared.postgres.new_database()))
            server = os.path.join(str(direct.query["host"]), ".s.PGSQL.5432")
            self.database_proxy = self._proxy(lambda: _connected(server))
            proxied = direct.set(host="127.0.0.1", port=self.database_proxy.port, query={"sslmode": "disable"})
            self.database_url = proxied.render_as_string(hide_password=False)
            self.engine = create_engine(direct, pool_pre_ping=True)
        self._stack.callback(self.engine.dispose)

    def _proxy(self, connect: Callable[[], socket.socket]) -> Proxy:
        proxy = Proxy(connect)
        self._stack.callback(proxy.close)
        return proxy

    def _start(self, seat: Seat) -> None:
        seat.child = self._fork(seat.arguments, seat.environment, self.folder / "logs" / f"{seat.name}.log")

    def _fork(self, arguments: Sequence[str], environment: dict[str, str], log: Path) -> Child:
        return self.shared.forks.fork(chaos_request("nightshift", arguments, environment, log))

    def _tend(self) -> None:
        while not self._stop.wait(_TEND_SECONDS):
            with self._lock:
                for seat in self.seats:
                    if not seat.left and seat.child is not None and seat.child.poll() is not None:
                        self._start(seat)

    def _end_seats(self) -> None:
        with self._lock:
            seats, self.seats = self.seats, []
        for seat in seats:
            if seat.child is not None:
                seat.child.signal(signal.SIGTERM)
        for seat in seats:
            if seat.child is not None:
                seat.child.end()


def _connected(path: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(path)
    except OSError:
        server.close()
        raise
    return server


def json_in(output: str) -> Any:
    """The JSON that a command printed before its warnings."""
    return json.JSONDecoder().raw_decode(output[output.index("{") :])[0]


def wait_for(happens: Callable[[], Any], seconds: float, what: str) -> Any:
    """Asks until the answer is true, and returns it. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not (answer := happens()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.05)
    return answer
