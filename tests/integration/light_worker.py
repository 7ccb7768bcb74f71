"""Takes the place of a worker's process where many devices have one: standard library only, so all start in no time.

Writes the row that a worker writes, and ends when it is drained or told to.
"""

import os
import signal
import sqlite3
import sys
import time

LOOK_SECONDS = 0.1
#: as the ledger's times are written in SQLite
_NOW = "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    seen = f"cuda:{os.environ['CUDA_VISIBLE_DEVICES']}"
    assert given["--name"] == seen
    ledger = sqlite3.connect(os.environ["NIGHTSHIFT_DATABASE_URL"].removeprefix("sqlite:///"), timeout=30)
    ledger.execute(
        "INSERT INTO workers (id, host, process_id, device, pair, pair_fingerprint, state, started_at, seen_at)"
        f" VALUES (?, 'gpu7', ?, ?, ?, 'f', 'ready', {_NOW}, {_NOW})",
        (given["--worker-id"], os.getpid(), seen, given["--pair"]),
    )
    ledger.commit()
    told = "SELECT 1 FROM workers WHERE id = ? AND draining_since IS NOT NULL"
    while not ledger.execute(told, (given["--worker-id"],)).fetchone():
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    main()
