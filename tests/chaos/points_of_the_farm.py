"""The crash points of producers and dispatchers: round the commits of submit and release, and round a publish."""

import json
import os
from pathlib import Path
from typing import Any

from farm import batches, ledger
from farm.broker import Broker
from tests.chaos.crash_points import after, around, before


def put_farm_points() -> None:
    after(batches, "_move", "before_the_commit")  # inside the transaction that opens the batch
    after(batches, "open_batch", "after_the_commit")
    after(ledger, "release_packs", "released", answered=True)
    after(ledger, "expire_leases", "expired", answered=True)
    around(Broker, "publish", _noting)
    before(Broker, "publish", "before_publishing")
    after(Broker, "publish", "after_publishing")


def _noting(publish: Any, broker: Any, queue: str, pack_ids: Any) -> None:
    """What became of each publish, so that the checker can tell whether an error was swallowed."""
    published = False
    try:
        publish(broker, queue, pack_ids)
        published = True
    finally:
        line = {"pack_ids": list(pack_ids), "published": published, "pid": os.getpid()}
        with Path(os.environ["CHAOS_POINTS"], "fired", "publishes.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
