"""What a farm needs from this machine, checked one by one, each with what to do about it."""

import socket
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from farm.database import Database
from farm.workers import recent_workers, seat
from producer.questions.queries import workers_seen
from producer.upkeep import machine_checks, server_checks
from producer.upkeep.pinned_weights import pinned_weights
from schemas.errors import NightshiftError
from schemas.printable import printable
from schemas.settings import Settings

_SHOWN_WORKERS: Final = 8
_CHECKS: Final[dict[str, Callable[[Settings], str]]] = {
    "ledger": server_checks.ledger,
    "redis": server_checks.redis,
    "redis version": server_checks.redis_version,
    "image store": server_checks.image_store,
    "disk": machine_checks.disk,
    "memory": machine_checks.memory,
    "gpus": machine_checks.gpus,
}


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    subject: str
    ok: bool
    sentence: str


def examine(settings: Settings, pairs: Sequence[str] = ()) -> list[Finding]:
    """Asks the servers, the machine, and the ledger about the workers. What fails becomes a finding.

    pairs: what workers here pin, besides the pairs of those that were seen lately; where there are neither, the
    setting's.
    """
    findings = [_finding(subject, check, settings) for subject, check in _CHECKS.items()]
    if not findings[0].ok:
        return [*findings, *_model_files(settings, pairs)]
    return [*findings, _finding("clock", server_checks.clock, settings), *_of_the_farm(settings, pairs)]


def _finding(subject: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(subject, True, printable(check(settings)))
    except NightshiftError as error:
        return Finding(subject, False, printable(str(error)))


def _model_files(settings: Settings, pairs: Sequence[str]) -> list[Finding]:
    return [
        _finding("pair", partial(machine_checks.model_files, name=pair), settings)
        for pair in dict.fromkeys(pairs or [settings.pair])
    ]


def _of_the_farm(settings: Settings, pairs: Sequence[str]) -> list[Finding]:
    """What concerns this host is judged. Of others it is told."""
    with closing(Database(settings.database_url)) as database:
        try:
            lately = workers_seen(database, socket.gethostname(), settings.lease_seconds)
            told = [*_weights(database, settings), *_workers(lately, recent_workers(database, _SHOWN_WORKERS))]
        except NightshiftError as error:
            return [*_model_files(settings, pairs), Finding("workers", False, printable(str(error)))]
    return [*_model_files(settings, [*pairs, *sorted({worker.pair for worker in lately})]), *told]


def _weights(database: Database, settings: Settings) -> list[Finding]:
    here = socket.gethostname()
    return [
        Finding("weights", pinned.agree or here not in set().union(*pinned.hosts.values()), printable(str(pinned)))
        for pinned in pinned_weights(database, settings.lease_seconds)
    ]


def _workers(lately: Sequence[Any], others: Sequence[Any]) -> list[Finding]:
    """This host's workers that were seen lately are judged; others are told of, for they may be history."""
    seats: dict[tuple[str, str, str], Finding] = {}
    for worker in lately:
        seats.setdefault(seat(worker), _worker(worker, judged=True))  # an older one's failure is history
    for worker in others:
        seats.setdefault(seat(worker), _worker(worker, judged=False))
    return list(seats.values())


def _worker(worker: Any, *, judged: bool) -> Finding:
    said = f": {worker.error}" if worker.error else ""
    seen = "" if judged else f", last seen {worker.seen_at:%Y-%m-%d %H:%M} UTC"
    refused = f", messages refused: {worker.num_refused} (see its log)" if worker.num_refused else ""
    sentence = f"{worker.device} of {worker.host}, pair {worker.pair}, {worker.state}{seen}{refused}{said}"
    return Finding("worker", not judged or worker.state != "failed", printable(sentence))
