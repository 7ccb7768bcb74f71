"""Who works: the ``workers`` table. A worker is live while it was seen within its lease."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, and_, func, insert, select, update

from farm.database import Transaction, question, statement, transaction
from schemas.tables import Result, Worker

WorkerState = Literal["loading", "ready", "stopped", "failed"]
Standing = Literal["live", "silent", "out of service", "drained"]
_LIVE: Final = ("loading", "ready")


@dataclass(frozen=True)
class WorkerIdentity:
    """One worker process: which pair, on which device of which host."""

    id: str
    host: str
    process_id: int
    device: str
    pair: str


@transaction
def register_worker(tx: Transaction, worker: WorkerIdentity) -> None:
    """A new row in state ``loading``."""
    tx.execute(insert(Worker).values(**vars(worker), state="loading", started_at=tx.now, seen_at=tx.now))


@statement
def note_worker(tx: Transaction, worker_id: str, state: WorkerState, error: str | None = None) -> None:
    """The worker's state, seen now."""
    tx.execute(update(Worker).where(Worker.id == worker_id).values(state=state, seen_at=tx.from_now(), error=error))


@statement
def note_fingerprint(tx: Transaction, worker_id: str, pair_fingerprint: str) -> None:
    """Which weights the worker has pinned."""
    tx.execute(update(Worker).where(Worker.id == worker_id).values(pair_fingerprint=pair_fingerprint))


@statement
def note_seen(tx: Transaction, worker_id: str, reading: dict[str, Any] | None = None) -> bool:
    """The worker is alive. Whether it is being drained.

    ``reading``: of its GPU (``worker.device_process.gpu_watch``); None where there is none, or its driver says nothing.
    """
    seen = update(Worker).where(Worker.id == worker_id).values(seen_at=tx.from_now(), reading=reading)
    return tx.execute(seen.returning(Worker.draining_since)).scalar_one_or_none() is not None


@transaction
def count_refused(tx: Transaction, worker_id: str, num_messages: int = 1) -> None:
    """So many more messages that were not ours, or of another version."""
    tx.execute(update(Worker).where(Worker.id == worker_id).values(num_refused=Worker.num_refused + num_messages))


def is_live(tx: Transaction, seen_within_seconds: float) -> ColumnElement[bool]:
    """Of a row of ``workers``, in a question."""
    return and_(Worker.state.in_(_LIVE), Worker.seen_at > tx.from_now(-seen_within_seconds))


@question
def live_workers(tx: Transaction, seen_within_seconds: float) -> dict[str, int]:
    """pair → number of live workers."""
    alive = select(Worker.pair, func.count().label("num")).where(is_live(tx, seen_within_seconds))
    return {row.pair: row.num for row in tx.execute(alive.group_by(Worker.pair))}


@question
def known_fingerprint(tx: Transaction, pair: str) -> str | None:
    """Of the weights that the last worker of the pair had pinned; None where no worker has said so yet."""
    said = select(Worker.pair_fingerprint).where(Worker.pair == pair, Worker.pair_fingerprint.is_not(None))
    return tx.execute(said.order_by(Worker.started_at.desc()).limit(1)).scalar_one_or_none()


@question
def recent_workers(tx: Transaction, limit: int) -> Sequence[Any]:
    """Rows of ``workers``, the youngest first."""
    return tx.execute(select(Worker).order_by(Worker.started_at.desc()).limit(limit)).all()


@question
def workers_by_id(tx: Transaction, ids: Sequence[str]) -> dict[str, Any]:
    """id → row of ``workers``."""
    return {row.id: row for row in tx.execute(select(Worker).where(Worker.id.in_(ids)))}


@question
def was_ready(tx: Transaction, worker_id: str) -> bool:
    """Whether this worker got past its loading."""
    loaded = select(Worker.id).where(Worker.id == worker_id, Worker.pair_fingerprint.is_not(None))
    return tx.execute(loaded).first() is not None


@question
def last_words(tx: Transaction, worker_id: str) -> str | None:
    """What a worker that failed said of it itself."""
    return tx.execute(select(Worker.error).where(Worker.id == worker_id)).scalar_one_or_none()


@question
def has_recorded(tx: Transaction, worker_id: str) -> bool:
    """Whether this worker recorded any image."""
    started = select(Worker.started_at).where(Worker.id == worker_id).scalar_subquery()
    by_it = select(Result.job_id).where(Result.worker_id == worker_id, Result.finished_at >= started)
    return tx.execute(by_it.limit(1)).first() is not None


def seated_workers(tx: Transaction, since: datetime, lease_seconds: float) -> list[tuple[Any, Standing]]:
    """Rows of ``workers``, in a question: every live one, and of each device (host, device, pair) without a live one
    the last that was seen since then, unless it stopped as it should and nobody has drained it."""
    alive_since = tx.now - timedelta(seconds=lease_seconds)
    lately = select(Worker).where(Worker.seen_at > min(since, alive_since)).order_by(Worker.started_at.desc())
    live, last = list[tuple[Any, Standing]](), dict[tuple[str, str, str], tuple[Any, Standing | None]]()
    for row in tx.execute(lately):
        standing = _standing(row, alive_since)
        if standing == "live":
            live.append((row, standing))
        last.setdefault(seat(row), (row, standing))
    seats = {seat(row) for row, _ in live}
    return [*live, *((row, standing) for its, (row, standing) in last.items() if standing and its not in seats)]


def last_errors(tx: Transaction, since: datetime) -> dict[tuple[str, str, str], Any]:
    """Seat → the row (host, device, pair, error, seen_at) of its last worker that failed since then, in a question: a
    process that is started in its place knows nothing of it."""
    columns = (Worker.host, Worker.device, Worker.pair, Worker.error, Worker.seen_at)
    failed = select(*columns).where(Worker.error.is_not(None), Worker.seen_at > since).order_by(Worker.seen_at)
    return {seat(row): row for row in tx.execute(failed)}


def seat(worker: Any) -> tuple[str, str, str]:
    """Host, device, pair: what the next process has when this one has ended."""
    return worker.host, worker.device, worker.pair


def _standing(row: Any, alive_since: datetime) -> Standing | None:
    """None for one that stopped."""
    if row.state in _LIVE and row.seen_at > alive_since:
        return "live"
    if row.draining_since is not None:
        return "drained"
    return "silent" if row.state in _LIVE else "out of service" if row.state == "failed" else None
