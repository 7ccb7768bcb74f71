"""Batches a page at a time, the youngest first. Nothing here changes a row."""

from collections.abc import Sequence

from sqlalchemy import select

from farm.database import Transaction, question
from producer.questions.queries import SUMMARY, BatchSummary
from schemas.states import BatchState
from schemas.tables import Batch


@question
def batches_before(
    tx: Transaction, before: int | None, states: Sequence[BatchState], limit: int, first: int = 1
) -> list[BatchSummary]:
    """Those from ``first`` on with a lower number than ``before``, in one of these states; where none is named, in
    any."""
    page = select(*SUMMARY).where(Batch.id >= first).order_by(Batch.id.desc()).limit(limit)
    page = page if before is None else page.where(Batch.id < before)
    page = page.where(Batch.state.in_(states)) if states else page
    return [BatchSummary.of(row) for row in tx.execute(page)]
