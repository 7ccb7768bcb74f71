"""Draining: a worker takes no more packs, ends after those in its hands, and none starts in its place (``workers``).

The worker learns of it when it says that it is alive, its supervisor before it starts another.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, func, or_, select, update

from farm.database import Transaction, question, transaction
from farm.workers import is_live
from schemas.tables import Worker

#: A device whose process died this long ago, or less, may be about to get another.
_SEAT_SECONDS: Final = 3600.0
_TOLD: Final = (Worker.id, Worker.host, Worker.device, Worker.pair, Worker.state)


@transaction
def drain(tx: Transaction, name: str) -> Sequence[Any]:
    """Rows (id, host, device, pair, state) of the workers that are told: by ``HOST``, ``HOST/DEVICE``, or their id."""
    lately = and_(Worker.state != "stopped", Worker.seen_at > tx.now - timedelta(seconds=_SEAT_SECONDS))
    told = update(Worker).where(_is_named(name), lately)
    since = func.coalesce(Worker.draining_since, tx.now)
    return tx.execute(told.values(draining_since=since).returning(*_TOLD)).all()


@transaction
def stop_draining(tx: Transaction, name: str) -> Sequence[Any]:
    """As ``drain``: those that had been told. Their supervisors start others in their places."""
    told = update(Worker).where(_is_named(name), Worker.draining_since.is_not(None))
    return tx.execute(told.values(draining_since=None).returning(*_TOLD)).all()


@question
def names(tx: Transaction, seen_within_seconds: float) -> list[str]:
    """What live workers can be drained by: ``HOST/DEVICE``."""
    live = select(Worker.host, Worker.device).where(is_live(tx, seen_within_seconds)).distinct()
    return sorted(f"{row.host}/{row.device}" for row in tx.execute(live))


@question
def is_draining(tx: Transaction, worker_id: str) -> bool:
    told = select(Worker.id).where(Worker.id == worker_id, Worker.draining_since.is_not(None))
    return tx.execute(told).first() is not None


def _is_named(name: str) -> ColumnElement[bool]:
    host, _, device = name.partition("/")
    return or_(Worker.id == name, Worker.host == name, and_(Worker.host == host, Worker.device == device))
