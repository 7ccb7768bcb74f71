"""A worker without a device: the real consumer, transport and ledger; each pack takes its time, and its id is printed.

python -m tests.integration.hint_consumer DATABASE_URL BROKER_URL PREFIX WORKER_ID PACK_SECONDS [remote_control]
"""

import os
import sys
import time
import warnings
from typing import Any

from celery.signals import worker_ready

from farm.broker import Broker
from farm.database import Database
from farm.logs import log_to_stderr
from schemas.messages import PackMessage
from schemas.settings import Settings
from worker.device_process.consumer import consume
from worker.device_process.refusals import Refusals


def main() -> None:
    database_url, broker_url, prefix, worker_id, pack_seconds, *more = sys.argv[1:]
    log_to_stderr(Settings(), "consumer")
    refusals = Refusals(Database(database_url), worker_id, pause_seconds=0.01)
    broker = Broker(broker_url, prefix, refusals, remote_control=more == ["remote_control"])

    def take(content: dict[str, Any]) -> None:
        time.sleep(float(pack_seconds))
        # In one write: two slots end at the same moment, and print writes text and line end apart.
        os.write(1, f"{PackMessage.decode(content).pack_id}\n".encode())

    def ready(**_: Any) -> None:
        print("ready", flush=True)

    worker_ready.connect(ready, weak=False)
    warnings.simplefilter("ignore", PendingDeprecationWarning)
    consume(broker, "tiny", "consumer@test", take)
    refusals.close()


if __name__ == "__main__":
    main()
