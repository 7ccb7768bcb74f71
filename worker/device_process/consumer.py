"""Celery's consumer of one pair's queue: its main thread answers the broker while packs run in threads."""

import logging
import warnings
from collections.abc import Callable
from typing import Any, Final

from celery.exceptions import SecurityWarning

from farm.broker import Broker
from schemas.messages import TASK_NAME
from schemas.pair import queue_name
from worker.device_process import pack_threads

#: Packs in hand at once: one renders, the other is prepared or finished.
NUM_PACK_THREADS: Final = 2


def consume(broker: Broker, pair: str, hostname: str, run: Callable[[dict[str, Any]], None]) -> None:
    """Calls ``run`` with each message, in one of the pack threads. Returns after SIGTERM, when those have ended.

    ``hostname``: Celery's name of this worker, ``NAME@HOST``.
    """

    @broker.app.task(name=TASK_NAME)  # type: ignore[untyped-decorator]
    def render_pack(**content: Any) -> None:
        run(content)

    warnings.simplefilter("ignore", SecurityWarning)  # of root: meant for pickle, and this app takes JSON alone
    broker.app.Worker(
        pool=pack_threads.NAME,
        concurrency=NUM_PACK_THREADS,
        queues=[queue_name(pair)],
        hostname=hostname,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
        loglevel=logging.getLogger().level,  # which Celery would set otherwise; it is quiet by ``log_to_stderr``
    ).start()
