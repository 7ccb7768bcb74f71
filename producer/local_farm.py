"""What `render` and `up` run on this machine: Redis where none is set, a dispatcher, and a supervisor with its workers.

Files: ``$NIGHTSHIFT_HOME/logs/worker.log``. Everything started here ends here, also when this process is killed.
"""

import logging
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from threading import Event, Thread
from types import TracebackType
from typing import Self

from farm.broker import Broker, open_broker
from farm.database import Database
from farm.embedded_redis import EmbeddedRedis, is_running
from farm.image_store import ImageStore
from farm.log_tail import last_line
from farm.tether import tethered
from farm.workers import live_workers
from producer.dispatching.dispatcher import Dispatcher
from producer.dispatching.firings import Firings
from producer.dispatching.told_metrics import told_metrics
from schemas.errors import NightshiftError, OutOfServiceError, PairError, StorageError, UnavailableError
from schemas.settings import Settings

log = logging.getLogger("nightshift.local")


class LocalFarm:
    """A context manager, for the main thread: its processes are tethered to it. ``tend`` starts the workers.

    shares_workers: start none while live ones serve the pair already.
    fires_schedules: not where it runs for one batch alone.
    """

    def __init__(self, database: Database, settings: Settings, pair: str, *, shares_workers: bool,
                 fires_schedules: bool = False) -> None:  # fmt: skip
        self.log_file = settings.log_folder / "worker.log"
        self._database = database
        self._settings = settings
        self._pair = pair
        self._shares_workers = shares_workers
        self._fires_schedules = fires_schedules
        self._redis: EmbeddedRedis | None = None
        self._stop = Event()
        self._workers: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        ImageStore(self._settings.images_url).check()  # said here, in one sentence, and not by each worker
        with self._stack:
            self._stack.callback(self._end_redis)
            self._tend_redis()
            broker = open_broker(self._settings)
            self._stack.callback(broker.close)
            broker.info()  # raises where Redis does not answer
            self._start_dispatcher(broker)
            self._stack.callback(self._end_workers)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def tend(self) -> None:
        """Starts what is missing: Redis, and workers. To be called every second or so.

        Raises:
            NightshiftError: the workers cannot run, or the dispatcher died; says why.
        """
        if not self._dispatcher.is_alive():
            raise NightshiftError("the dispatcher died; its traceback stands above")
        self._tend_redis()
        if self._workers is None:
            if not self._is_served():
                self._workers = self._start_workers()
            return
        code = self._workers.poll()
        if code is not None:
            self._workers = None
            raise self._death(code)

    def _is_served(self) -> bool:
        """Whether somebody else's workers render this pair, and that is good enough for us."""
        if not self._shares_workers:
            return False
        return bool(live_workers(self._database, self._settings.lease_seconds).get(self._pair))

    def _tend_redis(self) -> None:
        """Where no Redis is set, the home's own one runs: ours, or that of another command until it ends."""
        if self._settings.broker_url or is_running(self._settings.home):
            return
        self._end_redis()
        self._redis = EmbeddedRedis(self._settings.home)
        self._redis.start()

    def _end_redis(self) -> None:
        if self._redis is not None:
            self._redis.stop()
            self._redis = None

    def _start_dispatcher(self, broker: Broker) -> None:
        firings = Firings(self._database, self._settings) if self._fires_schedules else None
        dispatcher = Dispatcher(self._database, broker, self._settings, firings)
        note = self._stack.enter_context(told_metrics(self._database, self._settings))
        self._dispatcher = Thread(target=dispatcher.run, args=(self._stop, note), name="dispatcher")
        self._dispatcher.start()
        self._stack.callback(self._dispatcher.join)
        self._stack.callback(self._stop.set)

    def _start_workers(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-P", "-m", "nightshift", "worker", "--pair", self._pair]
        try:
            self.log_file.parent.mkdir(parents=True, exist_ok=True)
            with self.log_file.open("ab") as stream:
                # A session of its own: Ctrl-C in the terminal reaches this process alone, which stops gently.
                return subprocess.Popen(
                    tethered(command), stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
                )
        except OSError as error:
            raise StorageError(f"cannot write {self.log_file}: {error.strerror}") from error

    def _end_workers(self) -> None:
        """Lets the packs in hand finish, for ``stop_seconds`` at the most. Another Ctrl-C meanwhile gives them back."""
        while self._workers is not None and self._workers.poll() is None:
            self._workers.send_signal(signal.SIGTERM)
            with suppress(KeyboardInterrupt):
                self._workers.wait()

    def _death(self, code: int) -> NightshiftError:
        said = last_line(self.log_file)
        if code == PairError.exit_code:
            return PairError(said)
        if code == UnavailableError.exit_code:
            return UnavailableError(said)
        if code == OutOfServiceError.exit_code:
            return OutOfServiceError(said)
        return NightshiftError(f"the workers ended with {code}: {said} (more in {self.log_file})")
