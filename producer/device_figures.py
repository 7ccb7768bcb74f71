"""What each device does now: its pack, its rate, its last error. Nothing here changes a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select

from farm.database import Transaction, question
from schemas.states import PackState
from schemas.tables import Batch, Pack, Result, Worker

RATE_SECONDS: Final = 300.0
_SILENT_DAYS: Final = 3
_LIVE: Final = ("loading", "ready")


@dataclass(frozen=True)
class HeldPack:
    """A pack that a worker has claimed. ``begun_at``: when its rendering began, if it has."""

    id: str
    batch_id: int
    batch_name: str
    pack_key: str
    num_jobs: int
    begun_at: datetime | None


@dataclass(frozen=True)
class DeviceFigures:
    """The last worker of one device, and what it has in hand, the oldest pack first."""

    worker: Any
    is_live: bool
    packs: tuple[HeldPack, ...]
    #: over the last five minutes, or since it was started
    images_per_second: float

    @property
    def standing(self) -> str:
        """In a word: loading, ready, draining, drained, silent, failed."""
        if self.worker.draining_since is not None:
            return "draining" if self.is_live else "drained"
        if self.worker.state in _LIVE and not self.is_live:
            return "silent"
        return str(self.worker.state)


@question
def device_figures(tx: Transaction, lease_seconds: float) -> list[DeviceFigures]:
    """Of every device that was seen in the last days, those that work first, then by host and device."""
    workers = _last_workers(tx)
    live_since = tx.now - timedelta(seconds=lease_seconds)
    ids = [worker.id for worker in workers]
    packs, rates = _held(tx, ids), _rates(tx, ids)
    found = [
        DeviceFigures(
            worker=worker,
            is_live=worker.state in _LIVE and worker.seen_at > live_since,
            packs=tuple(packs.get(worker.id, ())),
            images_per_second=rates.get(worker.id, 0) / _seconds_of(tx.now, worker),
        )
        for worker in workers
    ]
    return sorted(found, key=lambda one: (not one.is_live, one.worker.host, one.worker.device))


def _seconds_of(now: datetime, worker: Any) -> float:
    age: timedelta = now - worker.started_at
    return max(1.0, min(RATE_SECONDS, age.total_seconds()))


def _last_workers(tx: Transaction) -> Sequence[Any]:
    """Of each seat (host, device, pair); one that has stopped as it should is no device any more, unless it is drained
    and can be given another worker."""
    lately = select(Worker).where(Worker.seen_at > tx.now - timedelta(days=_SILENT_DAYS))
    last: dict[tuple[str, str, str], Any] = {}
    live: list[Any] = []
    for row in tx.execute(lately.order_by(Worker.started_at.desc())):
        seat = (row.host, row.device, row.pair)
        if seat not in last:
            last[seat] = row
        elif row.state in _LIVE and last[seat].state in _LIVE:
            live.append(row)  # a CPU may have several workers
    return [row for row in (*last.values(), *live) if row.state != "stopped" or row.draining_since is not None]


def _held(tx: Transaction, worker_ids: Sequence[str]) -> Mapping[str, list[HeldPack]]:
    columns = (Pack.id, Pack.batch_id, Pack.pack_key, Pack.num_jobs, Pack.rendering_at, Pack.worker_id)
    held = select(*columns, Batch.name).join(Batch, Batch.id == Pack.batch_id)
    running = (Pack.state == PackState.RUNNING, Pack.worker_id.in_(worker_ids))
    packs: dict[str, list[HeldPack]] = {}
    for row in tx.execute(held.where(*running).order_by(Pack.claimed_at)):
        pack = HeldPack(row.id, row.batch_id, row.name, row.pack_key, row.num_jobs, row.rendering_at)
        packs.setdefault(row.worker_id, []).append(pack)
    return packs


def _rates(tx: Transaction, worker_ids: Sequence[str]) -> Mapping[str, int]:
    """worker → images that it rendered in the last five minutes."""
    counted = select(Result.worker_id, func.count().label("num")).group_by(Result.worker_id)
    recent = (Result.finished_at > tx.now - timedelta(seconds=RATE_SECONDS), Result.attempt > 0)
    rows = tx.execute(counted.where(*recent, Result.worker_id.in_(worker_ids)))
    return {row.worker_id: row.num for row in rows}
