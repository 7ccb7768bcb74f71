"""What the webhook is told of each batch: once for each event, however many dispatchers there are. Table:
``webhook_deliveries``.

awaited → due → sending → sent, failed (given up), or due again; awaited → void where it never came to it. Whoever sends
has claimed the row; when it dies meanwhile, another sends the same event again, under the same id.
"""

import json
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import and_, exists, or_, select, update

from farm.database import Transaction, transaction
from farm.discarding import IS_DISCARDED
from schemas.states import BatchState
from schemas.tables import Batch, WebhookDelivery
from schemas.webhook import EVENTS, FAILURE_SHARE, FINISHED, MAX_ATTEMPTS, STARTED, wait_seconds

#: A batch that was opened so lately may have ended before anybody looked; older ones that have ended are history.
_NEW: Final = timedelta(hours=1)
#: of events that fell due at once, the start comes first
_IN_TURN: Final = (WebhookDelivery.next_at, WebhookDelivery.batch_id, WebhookDelivery.event.desc())
_COUNTERS: Final = ("pending", "queued", "running", "done", "failed", "canceled")


@dataclass(frozen=True)
class Delivery:
    """An event in a sender's hands. ``attempts``: with this one."""

    batch_id: int
    event: str
    event_id: str
    body: str
    attempts: int


@transaction
def note_events(tx: Transaction, failure_share: float) -> int:
    """Nothing → awaited, for batches that go on; awaited → due, for what has happened. Returns how many are due."""
    _await_events(tx)
    awaited = select(WebhookDelivery.event, WebhookDelivery.event_id, Batch).join_from(WebhookDelivery, Batch)
    num_due = 0
    for row in tx.execute(awaited.where(WebhookDelivery.state == "awaited")).all():
        batch = row._mapping
        if _has_happened(batch, failure_share):
            values = {"state": "due", "body": _body(tx, batch, failure_share), "next_at": tx.now}
            num_due += 1
        elif _has_ended(batch):
            values = {"state": "void"}
        else:
            continue
        same = (WebhookDelivery.event_id == row.event_id, WebhookDelivery.state == "awaited")
        tx.execute(update(WebhookDelivery).where(*same).values(values))
    return num_due


@transaction
def claim_delivery(tx: Transaction, seconds: float) -> Delivery | None:
    """due → sending, for so long; also of a sender that died. None where nothing is to be sent now."""
    waiting = and_(WebhookDelivery.state.in_(("due", "sending")), WebhookDelivery.next_at <= tx.now)
    oldest = select(WebhookDelivery).where(waiting).order_by(*_IN_TURN).limit(1)
    row = tx.execute(oldest.with_for_update(skip_locked=True)).one_or_none()
    if row is None:
        return None
    claimed = {"state": "sending", "attempts": row.attempts + 1, "next_at": tx.now + timedelta(seconds=seconds)}
    tx.execute(update(WebhookDelivery).where(WebhookDelivery.event_id == row.event_id).values(claimed))
    return Delivery(row.batch_id, row.event, row.event_id, row.body, row.attempts + 1)


@transaction
def note_sent(tx: Transaction, delivery: Delivery) -> None:
    """sending → sent, unless somebody else has claimed it since."""
    _end(tx, delivery, state="sent")


@transaction
def note_refused(tx: Transaction, delivery: Delivery, *, worth_a_retry: bool) -> bool:
    """sending → due, after a while, or failed. Returns whether it is sent again."""
    if not worth_a_retry or delivery.attempts >= MAX_ATTEMPTS:
        _end(tx, delivery, state="failed")
        return False
    _end(tx, delivery, state="due", next_at=tx.now + timedelta(seconds=wait_seconds(delivery.attempts)))
    return True


def _end(tx: Transaction, delivery: Delivery, **values: Any) -> None:
    ours = (WebhookDelivery.event_id == delivery.event_id, WebhookDelivery.attempts == delivery.attempts)
    tx.execute(update(WebhookDelivery).where(*ours, WebhookDelivery.state == "sending").values(**values))


def _await_events(tx: Transaction) -> None:
    left = Batch.num_pending + Batch.num_queued + Batch.num_running > 0
    is_news = or_(left, Batch.opened_at >= tx.now - _NEW)
    unknown = ~exists().where(WebhookDelivery.batch_id == Batch.id)
    news = select(Batch.id).where(Batch.state != BatchState.STAGING, ~IS_DISCARDED, is_news, unknown)
    batch_ids = tx.execute(news.with_for_update(read=True, key_share=True)).scalars()  # none is removed meanwhile
    rows = [
        {"batch_id": batch_id, "event": event, "event_id": uuid.uuid4().hex, "state": "awaited", "attempts": 0}
        for batch_id in batch_ids
        for event in EVENTS
    ]
    if rows:
        tx.execute(tx.insert(WebhookDelivery).on_conflict_do_nothing(), rows)


def _has_happened(batch: Any, failure_share: float) -> bool:
    match batch["event"]:
        case str(event) if event == STARTED:
            return bool(batch["num_running"] + batch["num_done"] + batch["num_failed"] > 0)
        case str(event) if event == FINISHED:
            return _has_ended(batch)
        case str(event) if event == FAILURE_SHARE:
            return bool(batch["num_failed"] and batch["num_failed"] >= failure_share * _num_jobs(batch))
    return False


def _has_ended(batch: Any) -> bool:
    return not batch["num_pending"] + batch["num_queued"] + batch["num_running"]


def _num_jobs(batch: Any) -> int:
    return sum(batch[f"num_{state}"] for state in _COUNTERS)


def _body(tx: Transaction, batch: Any, failure_share: float) -> str:
    content = {
        "id": batch["event_id"],
        "event": batch["event"],
        "happened_at": tx.now.isoformat(),
        "batch": {
            **{name: batch[name] for name in ("id", "name", "pair", "state")},
            "num_jobs": _num_jobs(batch),
            **{f"num_{state}": batch[f"num_{state}"] for state in _COUNTERS},
        },
    }
    if batch["event"] == FAILURE_SHARE:
        content["failure_share"] = failure_share
    return json.dumps(content)
