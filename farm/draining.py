"""Draining: a worker takes no more packs, ends after those in its hands, and none starts in its place (``workers``).

The worker learns of it when it says that it is alive, its supervisor before it starts another.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, update
from sqlalchemy.orm import aliased

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
    """As ``drained``: those of this name, which are no more. Their supervisors start others in their places.

    Marks of earlier workers, whose devices have had another one since, go with them.
    """
    told = tx.execute(_drained().where(_is_named(name))).all()
    tx.execute(update(Worker).where(_is_named(name), Worker.draining_since.is_not(None)).values(draining_since=None))
    return told


@question
def drained(tx: Transaction) -> Sequence[Any]:
    """Rows (id, host, device, pair, state, draining_since) of the last workers of devices that are drained or being
    drained, by host and device."""
    return tx.execute(_drained().order_by(Worker.host, Worker.device)).all()


def _drained() -> Select[*tuple[Any, ...]]:
    """One that began when it had ended is in its place; one beside it is of a CPU's several."""
    later = aliased(Worker)
    in_its_place = (later.host == Worker.host, later.device == Worker.device, later.started_at >= Worker.seen_at)
    is_last = ~select(later.id).where(later.id != Worker.id, *in_its_place).exists()
    return select(*_TOLD, Worker.draining_since).where(Worker.draining_since.is_not(None), is_last)


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
