"""A device that claims packs by Redis' messages, one after another, and gives each back: who got what, and when."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from threading import Event
from types import TracebackType
from typing import Any, Self

from benchmarks.waiting_farm import LEASE_SECONDS, PAIR, WaitingFarm
from farm import ledger
from farm.database import Database
from farm.envelope import pack_message
from farm.redis_client import redis_client
from schemas.pair import queue_name

_PAUSE_SECONDS = 0.05


@dataclass(frozen=True)
class Claim:
    """By ``time.perf_counter``: when it was asked for, and when it was answered."""

    batch_id: int
    began: float
    ended: float


class Claims:
    """A context manager: in a thread, until its end."""

    def __init__(self, farm: WaitingFarm) -> None:
        self._farm = farm
        self._thread = ThreadPoolExecutor(1, "claims")
        self._stop = Event()
        self._done: list[Claim] = []
        self._running: Future[None] | None = None

    def __enter__(self) -> Self:
        self._running = self._thread.submit(self._run)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.shutdown()

    def of(self, batch_id: int, since: float) -> list[Claim]:
        """Of packs of this batch, answered since then. Raises what ended the thread."""
        if self._running is not None and self._running.done():
            self._running.result()
        return [claim for claim in list(self._done) if claim.batch_id == batch_id and claim.ended >= since]

    def _run(self) -> None:
        with closing(Database(self._farm.database_url)) as database, redis_client(self._farm.redis_url) as redis:
            while not self._stop.wait(_PAUSE_SECONDS):
                self._take(database, redis)

    def _take(self, database: Database, redis: Any) -> None:
        """One pack. Messages of packs that went back stand for nothing, and a worker takes the next one at once."""
        while not self._stop.is_set():
            entry = redis.rpop(queue_name(PAIR))
            if entry is None or self._claim(database, entry):
                return

    def _claim(self, database: Database, entry: bytes) -> bool:
        began = time.perf_counter()
        pack_id = pack_message(entry).pack_id
        pack = ledger.claim_pack(database, pack_id, self._farm.worker_id, LEASE_SECONDS, "")
        if pack is None:
            return False
        self._done.append(Claim(pack.batch_id, began, time.perf_counter()))
        ledger.give_back_pack(database, pack)
        return True
