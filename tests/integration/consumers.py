"""Starts ``tests.integration.hint_consumer`` and reads what it says."""

import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from threading import Thread

from sqlalchemy import select

from farm.broker import Broker
from farm.database import Database
from farm.redis_client import redis_client
from farm.tether import tethered
from schemas.pair import queue_name
from schemas.tables import Worker
from tests.integration.ledger_farm import new_ledger, new_worker

QUEUE = queue_name("tiny")
#: only a hang takes this long, or a machine with much else to do
WAIT_SECONDS = 120.0


class Consumer:
    """A consumer's process, its ledger, and a Redis client that may do everything."""

    def __init__(
        self, folder: Path, broker_url: str, admin_url: str | None = None, prefix: str = "", pack_seconds: float = 0.0,
        remote_control: bool = False,
    ) -> None:  # fmt: skip
        self.database: Database = new_ledger(f"sqlite:///{folder / 'ledger.sqlite3'}")
        self.worker_id = new_worker(self.database)
        self.redis = redis_client(admin_url or broker_url)
        self.broker = Broker(admin_url or broker_url, prefix, remote_control=remote_control)
        self.key = f"{prefix}{QUEUE}"
        self._log = folder / "consumer.log"
        self._said: Queue[str] = Queue()
        url = f"sqlite:///{folder / 'ledger.sqlite3'}"
        command = [sys.executable, "-m", "tests.integration.hint_consumer", url, broker_url, prefix, self.worker_id]
        command += [str(pack_seconds), *(["remote_control"] if remote_control else [])]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(tethered(command), stdout=subprocess.PIPE, stderr=log, text=True)
        self._reader = Thread(target=self._read)
        self._reader.start()

    def next_line(self) -> str:
        """What it printed next; "ended" when it has ended."""
        return self._said.get(timeout=WAIT_SECONDS)

    def takes_a_hint(self) -> bool:
        pack_id = uuid.uuid4().hex
        self.broker.publish(QUEUE, [pack_id])
        return self.next_line() == pack_id

    @property
    def num_refused(self) -> int:
        with self.database.begin(read_only=True) as tx:
            return int(tx.execute(select(Worker.num_refused).where(Worker.id == self.worker_id)).scalar_one())

    def wait_for_refusals(self, num_refused: int) -> None:
        """They are counted beside the thread that refuses."""
        while self.num_refused < num_refused:
            assert self.process.poll() is None, self.log
            time.sleep(0.01)
        assert self.num_refused == num_refused

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> int:
        """As the supervisor does; the exit code."""
        self.process.terminate()
        code = self.process.wait(WAIT_SECONDS)
        self._reader.join()
        self.process.stdout.close()
        self.broker.close()
        self.redis.close()
        self.database.close()
        return code

    def _read(self) -> None:
        for line in self.process.stdout:
            self._said.put(line.strip())
        self._said.put("ended")


@contextmanager
def running_consumer(
    folder: Path, broker_url: str, admin_url: str | None = None, prefix: str = "", pack_seconds: float = 0.0,
    remote_control: bool = False,
) -> Iterator[Consumer]:  # fmt: skip
    consumer = Consumer(folder, broker_url, admin_url, prefix, pack_seconds, remote_control)
    try:
        assert consumer.next_line() == "ready", consumer.log
        yield consumer
    finally:
        if consumer.process.poll() is None:
            consumer.stop()
