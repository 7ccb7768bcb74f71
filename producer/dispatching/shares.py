"""The batches of which packs may be released, and whether their order still holds. Nothing here changes a row."""

from collections.abc import Sequence

from sqlalchemy import and_, or_, select

from farm.database import Transaction, question
from farm.packs import may_be_released
from producer.dispatching.release import BatchShare
from schemas.tables import Batch


@question
def releasable_batches(tx: Transaction) -> list[BatchShare]:
    """Open batches that have pending jobs and need not wait for their ``not_before``; whatever their windows say."""
    columns = (Batch.id, Batch.pair, Batch.priority, Batch.weight, Batch.num_pending, Batch.window, Batch.twin_group)
    rows = tx.execute(select(*columns).where(may_be_released(tx))).all()
    return [BatchShare(**row._mapping) for row in rows]


@question
def order_has_changed(tx: Transaction, pair: str, shares: Sequence[BatchShare]) -> bool:
    """Whether somebody has put one of these batches of the pair before or behind others since, or opened another that
    goes before one of them."""
    known = {(one.id, one.priority, one.weight) for one in shares if one.pair == pair}
    ids = [batch_id for batch_id, *_ in known]
    before_one = Batch.priority > min(priority for _, priority, _ in known)
    opened = and_(may_be_released(tx), Batch.pair == pair, before_one)
    rows = tx.execute(select(Batch.id, Batch.priority, Batch.weight).where(or_(Batch.id.in_(ids), opened)))
    return any(tuple(row) not in known for row in rows)
