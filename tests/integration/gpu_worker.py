"""Takes the place of a worker's process on a GPU: watches it as a worker does, and writes that into the ledger."""

import json
import os
import signal
import sqlite3
import sys
import time

from worker.device_process.gpu_watch import GpuWatch

LOOK_SECONDS = 0.1
#: as the ledger's times are written in SQLite
_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    assert given["--name"] == f"cuda:{os.environ['CUDA_VISIBLE_DEVICES']}"
    ledger = sqlite3.connect(os.environ["NIGHTSHIFT_DATABASE_URL"].removeprefix("sqlite:///"), timeout=30)
    ledger.execute(
        "INSERT INTO workers (id, host, process_id, device, pair, pair_fingerprint, state, started_at, seen_at)"
        f" VALUES (?, 'gpu7', ?, ?, ?, 'f', 'ready', {_NOW}, {_NOW})",
        (given["--worker-id"], os.getpid(), given["--name"], given["--pair"]),
    )
    watch = GpuWatch(given["--name"].partition(":")[2])
    while watch.look():
        reading = watch.last()
        said = None if reading is None else json.dumps(reading)
        ledger.execute("UPDATE workers SET reading = ? WHERE id = ?", (said, given["--worker-id"]))
        ledger.commit()
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
