"""Takes the place of a worker's process in the tests of the supervisor: no model, no device, and it dies as it is told.

STAND_IN says how. Each begins to render the oldest queued pack first, except the deaf one.
lost: its device is lost. deaf: the first one is deaf, the next is not. stubborn: SIGTERM does not end it. polite: it
does. ends N: on any GPU but the first it ends with N before it is ready, and is polite on the first.
"""

import argparse
import os
import signal
import sys
import time

from sqlalchemy import select

from farm import ledger, packs
from farm.database import Database
from farm.workers import WorkerIdentity, note_fingerprint, note_worker, register_worker
from schemas.settings import load_settings
from schemas.states import PackState
from schemas.tables import Pack, Worker
from worker.host.exit_codes import EXIT_DEAF, EXIT_DEVICE_LOST


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("--worker-id", "--pair", "--device", "--name"):
        parser.add_argument(name)
    worker_id = parser.parse_args().worker_id
    behaviour = os.environ["STAND_IN"]
    signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "stubborn" else lambda *_: sys.exit(0))
    database = Database(load_settings().database_url)
    if behaviour.startswith("ends") and os.environ.get("CUDA_VISIBLE_DEVICES") != "0":
        return int(behaviour.removeprefix("ends"))
    register_worker(database, WorkerIdentity(worker_id, "host", os.getpid(), "cpu", "tiny"))
    note_fingerprint(database, worker_id, "f" * 64)
    with database.begin(read_only=True) as tx:
        oldest = select(Pack.id).where(Pack.state == PackState.QUEUED).order_by(Pack.released_at).limit(1)
        pack_id = tx.execute(oldest).scalar_one_or_none()
        is_first = len(tx.execute(select(Worker.id)).all()) == 1
    if behaviour == "deaf":
        return EXIT_DEAF if is_first else wait(database, worker_id)
    if pack_id is not None:
        ledger.claim_pack(database, pack_id, worker_id, 60)
        packs.begin_rendering(database, pack_id, worker_id)
    if behaviour != "lost":
        return wait(database, worker_id)
    note_worker(database, worker_id, "failed", "the device is lost")
    return EXIT_DEVICE_LOST


def wait(database: Database, worker_id: str) -> int:
    note_worker(database, worker_id, "ready")
    time.sleep(60)
    return 1


if __name__ == "__main__":
    sys.exit(main())
