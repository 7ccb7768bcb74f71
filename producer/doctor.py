"""What a farm needs from this machine, checked one by one, each with what to do about it."""

import shutil
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from farm.broker import open_broker
from farm.database import Database
from farm.embedded_redis import is_running, redis_executable
from farm.image_store import ImageStore, local_path
from farm.schema import current_revision, ensure_schema
from farm.workers import recent_workers
from producer.queries import workers_seen
from producer.versions import redis_flaw, sqlite_flaw
from schemas.errors import NightshiftError, StorageError
from schemas.printable import printable
from schemas.settings import Settings

_LOW_DISK_BYTES: Final = 5 * 1024**3
_SHOWN_WORKERS: Final = 8


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    subject: str
    ok: bool
    sentence: str


def examine(settings: Settings) -> list[Finding]:
    """Checks the ledger, Redis, the image store, the disk, the pair and the workers. What fails becomes a finding."""
    checks: dict[str, Callable[[Settings], str]] = {
        "ledger": _ledger,
        "redis": _redis,
        "redis version": _redis_version,
        "image store": _image_store,
        "disk": _disk,
        "pair": _pair,
    }
    findings = [_finding(subject, check, settings) for subject, check in checks.items()]
    return [*findings, *_workers(settings)] if findings[0].ok else findings


def _finding(subject: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(subject, True, printable(check(settings)))
    except NightshiftError as error:
        return Finding(subject, False, printable(str(error)))


def _ledger(settings: Settings) -> str:
    with closing(Database(settings.database_url)) as database:
        ensure_schema(database)
        flaw = sqlite_flaw(sqlite3.sqlite_version_info) if database.engine.dialect.name == "sqlite" else None
        said = f"; {flaw}" if flaw else ""
        return f"{database.safe_url} answers, tables at {current_revision(database)}{said}"


def _redis(settings: Settings) -> str:
    if not settings.broker_url and not is_running(settings.home):
        return f"none runs now; `render` and `up` start {redis_executable()}"
    with closing(open_broker(settings)) as broker:
        info = broker.info()
        return f"{broker.safe_url} answers, version {info['redis_version']}, policy {info.get('maxmemory_policy', '?')}"


def _redis_version(settings: Settings) -> str:
    """One on a socket in a private folder is reached by its owner alone."""
    if not settings.broker_url.startswith(("redis://", "rediss://")):
        return "only this user can reach it"
    with closing(open_broker(settings)) as broker:
        flaw = redis_flaw(str(broker.info()["redis_version"]))
    if flaw:
        raise NightshiftError(flaw)
    return "no known way to run code in it"


def _image_store(settings: Settings) -> str:
    ImageStore(settings.images_url).check()
    return f"{settings.images_url} can be written"


def _disk(settings: Settings) -> str:
    folder = local_path(settings.images_url)
    if folder is None:
        return "images go elsewhere"
    try:
        free = shutil.disk_usage(_existing(folder)).free
    except OSError as error:
        raise StorageError(f"cannot tell how much is free at {folder}: {error.strerror}") from error
    if free < _LOW_DISK_BYTES:
        raise NightshiftError(f"{free / 1024**3:.1f} GiB free at {folder}; make room, an image of 1024² takes 1.5 MB")
    return f"{free / 1024**3:.0f} GiB free at {folder}"


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _pair(settings: Settings) -> str:
    pair = settings.model_pair()
    return f"{pair.name}: {pair.base.source}" + (f" and {pair.refiner.source}" if pair.refiner else "")


def _workers(settings: Settings) -> list[Finding]:
    """This host's workers that were seen lately are judged; others are told of, for they may be history."""
    with closing(Database(settings.database_url)) as database:
        try:
            lately = workers_seen(database, socket.gethostname(), settings.lease_seconds)
            others = recent_workers(database, _SHOWN_WORKERS)
        except NightshiftError as error:
            return [Finding("workers", False, printable(str(error)))]
    seats: dict[tuple[str, str, str], Finding] = {}
    for worker in lately:
        seats.setdefault(_seat(worker), _worker(worker, judged=True))  # an older one's failure is history
    for worker in others:
        seats.setdefault(_seat(worker), _worker(worker, judged=False))
    return list(seats.values())


def _seat(worker: Any) -> tuple[str, str, str]:
    return worker.host, worker.device, worker.pair


def _worker(worker: Any, *, judged: bool) -> Finding:
    said = f": {worker.error}" if worker.error else ""
    seen = "" if judged else f", last seen {worker.seen_at:%Y-%m-%d %H:%M} UTC"
    refused = f", messages refused: {worker.num_refused} (see its log)" if worker.num_refused else ""
    sentence = f"{worker.device} of {worker.host}, pair {worker.pair}, {worker.state}{seen}{refused}{said}"
    return Finding("worker", not judged or worker.state != "failed", printable(sentence))
