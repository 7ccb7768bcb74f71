"""The end of a worker process that cannot go on: says why, leaves it in the ledger if that answers, and is gone."""

import logging
import os
from contextlib import suppress
from threading import Thread
from typing import Final, NoReturn

from farm.database import Database
from farm.workers import note_worker
from schemas.errors import UnavailableError

log = logging.getLogger("nightshift.worker")

#: A ledger that hangs must not keep a process that hangs.
_LEDGER_SECONDS: Final = 5.0


def end_process(database: Database, worker_id: str, code: int, sentence: str) -> NoReturn:
    """Ends this process at once, whatever its threads do. What it held goes back when its supervisor finds it dead."""
    log.critical("%s", sentence)
    noting = Thread(target=_note, args=(database, worker_id, sentence), daemon=True)
    noting.start()
    noting.join(_LEDGER_SECONDS)
    os._exit(code)


def _note(database: Database, worker_id: str, sentence: str) -> None:
    with suppress(UnavailableError):
        note_worker(database, worker_id, "failed", sentence)
