"""What was handed in over HTTP, so that the same request twice makes one batch. Table: submissions.

A row is made in the transaction that makes its batch, and removed with it (``ON DELETE CASCADE``): a batch that was
staged and never opened leaves no key behind, however its process ended.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update

from farm.database import Transaction, question, transaction
from schemas.errors import LeaseLostError
from schemas.records import Received
from schemas.states import BatchState
from schemas.tables import Batch
from schemas.web_tables import SubmissionRow


@dataclass(frozen=True)
class Earlier:
    """What is known of an earlier request with the same key. ``answer``: None while its batch is being staged;
    ``staged_at``: when that last got rows."""

    batch_id: int
    request_sha256: str
    answer: dict[str, Any] | None
    staged_at: datetime
    seen_at: datetime


def note_received(tx: Transaction, received: Received, batch_id: int) -> None:
    """In the transaction that makes the batch. Raises LeaseLostError where another request holds the key by now."""
    row = tx.insert(SubmissionRow).values(**vars(received), batch_id=batch_id).on_conflict_do_nothing()
    if tx.execute(row.returning(SubmissionRow.batch_id)).first() is None:
        raise LeaseLostError("another request with this Idempotency-Key is being worked on")


@transaction
def note_answer(tx: Transaction, batch_id: int, answer: Mapping[str, Any]) -> None:
    """Before the batch is opened: whoever asks again gets it."""
    tx.execute(update(SubmissionRow).where(SubmissionRow.batch_id == batch_id).values(answer=dict(answer)))


@question
def earlier_request(tx: Transaction, key_sha256: str) -> Earlier | None:
    """The answer counts once its batch has been opened."""
    silent_since = func.coalesce(Batch.staged_at, Batch.created_at, type_=Batch.created_at.type)
    columns = (SubmissionRow.batch_id, SubmissionRow.request_sha256, SubmissionRow.answer, Batch.state)
    found = select(*columns, silent_since.label("staged_at")).join_from(SubmissionRow, Batch)
    row = tx.execute(found.where(SubmissionRow.key_sha256 == key_sha256)).one_or_none()
    if row is None:
        return None
    answer = None if row.state == BatchState.STAGING else row.answer
    return Earlier(row.batch_id, row.request_sha256 or "", answer, row.staged_at, tx.now)


@question
def batches_of(tx: Transaction, token_id: int, among: Collection[int]) -> set[int]:
    """Those of these batches that the token handed in."""
    ours = select(SubmissionRow.batch_id).where(SubmissionRow.token_id == token_id, SubmissionRow.batch_id.in_(among))
    return set(tx.execute(ours).scalars())


@question
def num_jobs_left(tx: Transaction, token_id: int) -> int:
    """Jobs of the token's batches that have not ended; of those that are being staged, too."""
    left = func.coalesce(func.sum(Batch.num_pending + Batch.num_queued + Batch.num_running), 0)
    ours = select(left).join_from(SubmissionRow, Batch).where(SubmissionRow.token_id == token_id)
    return int(tx.execute(ours).scalar_one())
