"""What each device does now: its pack, its rate, its last error. Nothing here changes a row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select

from farm.database import Transaction, question
from farm.workers import Standing, last_errors, seat, seated_workers
from schemas.states import PackState
from schemas.tables import Batch, Pack, Result

RATE_SECONDS: Final = 300.0
_SHOWN_FOR: Final = timedelta(days=3)


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
class DeviceError:
    """What the last process that failed on a device said, and when it was seen last."""

    sentence: str
    at: datetime


@dataclass(frozen=True)
class DeviceFigures:
    """The last worker of one device, and what it has in hand, the oldest pack first. ``error``: its own, or that of one
    before it in the last days."""

    worker: Any
    standing: Standing
    packs: tuple[HeldPack, ...]
    #: over the last five minutes, or since it was started
    images_per_second: float
    error: DeviceError | None

    @property
    def is_live(self) -> bool:
        return self.standing == "live"

    @property
    def state(self) -> str:
        """In a word: loading, ready, draining, drained, silent, out of service."""
        if not self.is_live:
            return self.standing
        return "draining" if self.worker.draining_since is not None else str(self.worker.state)


@question
def device_figures(tx: Transaction, lease_seconds: float) -> list[DeviceFigures]:
    """Of every device that was seen in the last days, those that work first, then by host and device."""
    since = tx.now - _SHOWN_FOR
    workers, errors = seated_workers(tx, since, lease_seconds), last_errors(tx, since)
    ids = [worker.id for worker, _ in workers]
    packs, rates = _held(tx, ids), _rates(tx, ids)
    found = [
        DeviceFigures(
            worker=worker,
            standing=standing,
            packs=tuple(packs.get(worker.id, ())),
            images_per_second=rates.get(worker.id, 0) / _seconds_of(tx.now, worker),
            error=_error(errors.pop(seat(worker), None)),  # of a CPU's several, the youngest is in its place
        )
        for worker, standing in workers
    ]
    return sorted(found, key=lambda one: (not one.is_live, one.worker.host, one.worker.device))


def _error(row: Any | None) -> DeviceError | None:
    return None if row is None else DeviceError(row.error, row.seen_at)


def _seconds_of(now: datetime, worker: Any) -> float:
    age: timedelta = now - worker.started_at
    return max(1.0, min(RATE_SECONDS, age.total_seconds()))


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
