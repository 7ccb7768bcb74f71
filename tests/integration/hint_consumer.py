"""A worker without a device: the real consumer, transport and ledger; each pack's id is printed and not rendered.

python -m tests.integration.hint_consumer DATABASE_URL BROKER_URL PREFIX WORKER_ID
"""

import sys
import warnings
from typing import Any

from celery.exceptions import SecurityWarning
from celery.signals import worker_ready

from farm.broker import Broker
from farm.database import Database
from farm.logs import log_to_stderr
from schemas.messages import TASK_NAME, PackMessage
from schemas.pair import queue_name
from worker.refusals import Refusals


def main() -> None:
    database_url, broker_url, prefix, worker_id = sys.argv[1:]
    log_to_stderr("info", "consumer")
    refusals = Refusals(Database(database_url), worker_id, pause_seconds=0.01)
    broker = Broker(broker_url, prefix, refusals)

    @broker.app.task(name=TASK_NAME)
    def render_pack(**content: Any) -> None:
        print(PackMessage.decode(content).pack_id, flush=True)

    def ready(**_: Any) -> None:
        print("ready", flush=True)

    worker_ready.connect(ready, weak=False)
    warnings.simplefilter("ignore", SecurityWarning)
    warnings.simplefilter("ignore", PendingDeprecationWarning)
    broker.app.Worker(
        pool="threads", concurrency=2, queues=[queue_name("tiny")], hostname="consumer@test", without_gossip=True,
        without_mingle=True, without_heartbeat=True, quiet=True, loglevel="WARNING",
    ).start()  # fmt: skip
    refusals.close()


if __name__ == "__main__":
    main()
